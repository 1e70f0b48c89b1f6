-- Of a limit at least so much is used. ARGV: base, channel, name, kind, capacity, three numbers, the amount.
local base = ARGV[1]
local now = clock(base)
local it = limit_of(base, ARGV[3], now, { ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8] })
local missing = tonumber(ARGV[9]) - used(it, now)
if missing > 0 then
  charge(it, missing, now)
end
save_counters(now)
return 1
