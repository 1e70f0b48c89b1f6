-- The provider counts the attempt from now on. ARGV: base, channel, attempt id. Again, or unknown: nothing.
local base, channel, id = ARGV[1], ARGV[2], ARGV[3]
local record = record_of(base, id)
if not record or record.counted then
  return 0
end
local now = clock(base)
record.counted = true
for _, part in ipairs(record.parts) do
  if not part[3] and not part[5] then
    local it = limit_of(base, part[1], now)
    give_back(it, part[2])
    part[5] = charge(it, part[2], now)
    if it.waiting == FOR_OTHERS then
      wake(it, channel)
    end
  end
end
keep_record(base, id, record)
save_counters(now)
return 1
