-- What one gateway used of a limit, after all was forgotten here. Once for each gateway, loss and limit.
-- ARGV: base, channel, gateway and loss, name, kind, capacity, three numbers, then moment, amount, moment, amount …
local base = ARGV[1]
local now = clock(base)
if not redis.call('SET', base .. 'a:' .. ARGV[3] .. ' ' .. ARGV[4], '', 'NX', 'EX', 3600) then
  return 0
end
local it = limit_of(base, ARGV[4], now, { ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9] })
for at = 10, #ARGV, 2 do
  local moment = math.min(tonumber(ARGV[at]), now)
  if it.kind ~= 'r' or now < end_of(it, slot_at(moment, it.a)) then
    charge(it, tonumber(ARGV[at + 1]), now, moment)
  end
end
save_counters(now)
return 1
