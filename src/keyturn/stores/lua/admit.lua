-- An attempt that was admitted without asking here: it holds its claims whether or not they fit, once for each id.
-- ARGV: base, channel, attempt id, then of each claim as for `reserve`. An id that is known, or was, changes nothing.
local base, id = ARGV[1], ARGV[3]
local now = clock(base)
if not redis.call('SET', base .. 'a:' .. id, '', 'NX', 'EX', 3600) or record_of(base, id) then
  return 0
end
local parts = {}
for at = 4, #ARGV, 8 do
  local spec = { ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5] }
  local it, flags = limit_of(base, ARGV[at], now, spec), ARGV[at + 7]
  local cost = math.min(tonumber(ARGV[at + 6]), it.most)
  used(it, now)
  it.held = it.held + cost
  parts[#parts + 1] = {
    ARGV[at], cost, string.find(flags, 'l', 1, true) ~= nil, string.find(flags, 'c', 1, true) ~= nil, false,
  }
end
keep_record(base, id, { counted = false, parts = parts })
redis.call('ZADD', base .. 'leases', written(now + HELD_FOR), id)
save_counters(now)
return 1
