-- The one clock of all scripts: Redis's own, in Unix seconds. A step back of it stops time until it has caught up.
local function clock(base)
  local read = redis.call('TIME')
  local now = tonumber(read[1]) + tonumber(read[2]) / 1e6
  local last = tonumber(redis.call('GET', base .. 'last') or '0')
  if now < last then
    return last
  end
  if now - last >= 0.01 then
    redis.call('SET', base .. 'last', string.format('%.17g', now))
  end
  return now
end
