-- The attempt is over. ARGV: base, channel, attempt id, then what it used of each part. Again, or unknown: nothing.
local base, channel, id = ARGV[1], ARGV[2], ARGV[3]
local record = record_of(base, id)
if not record then
  return 0
end
local now, actuals = clock(base), {}
for place = 4, #ARGV do
  actuals[place - 3] = ARGV[place]
end
settle(base, channel, id, record, actuals, now)
save_counters(now)
return 1
