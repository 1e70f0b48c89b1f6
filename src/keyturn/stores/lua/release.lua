-- Give back what is held and not counted, and refuse the id from now on. ARGV: base, channel, attempt id.
local base, channel, id = ARGV[1], ARGV[2], ARGV[3]
redis.call('SET', base .. 't:' .. id, '', 'EX', REFUSED_FOR)
local record = record_of(base, id)
if not record then
  return 0
end
local now = clock(base)
for _, part in ipairs(record.parts) do
  if not part[5] then
    local it = limit_of(base, part[1], now)
    give_back(it, part[2])
    if it.waiting ~= NOBODY then
      wake(it, channel)
    end
  end
end
drop_record(base, id)
save_counters(now)
return 1
