-- How limits stand; nothing is changed by asking.
-- ARGV: base, channel, then of each limit its name, kind, capacity and three numbers. Reply: now, and rows as `reserve`.
local base = ARGV[1]
local now, rows = clock(base), {}
for at = 3, #ARGV, 6 do
  local spec = { ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5] }
  local it = limit_of(base, ARGV[at], now, spec)
  rows[#rows + 1] = { written(used(it, now)), written(it.held), written(whole_in(it, now)) }
end
return { written(now), rows }
