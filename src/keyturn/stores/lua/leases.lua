-- Reservations: a record each, `r:<id>`, and their expiry in the sorted set `leases`. A part of a record is one limit:
-- 1 the limit's name, 2 the cost held, 3 whether it is counted late, 4 whether it is concurrency, 5 the mark or false.
local HELD_FOR = 50
local REFUSED_FOR = 60
local REAPED = 16

local function record_of(base, id)
  local packed = redis.call('GET', base .. 'r:' .. id)
  return packed and cmsgpack.unpack(packed)
end

local function keep_record(base, id, record)
  redis.call('SET', base .. 'r:' .. id, cmsgpack.pack(record))
end

local function drop_record(base, id)
  redis.call('DEL', base .. 'r:' .. id)
  redis.call('ZREM', base .. 'leases', id)
end

-- Tell all who wait for *it* that it came free before its time.
local function wake(it, channel)
  it.waiting, it.touched = NOBODY, true
  redis.call('PUBLISH', channel, cjson.encode({ 'wake', it.name }))
end

local function limit_of(base, name, now, spec)
  local it = counter(base .. 'u:' .. name, now, spec)
  it.name = name
  return it
end

-- The attempt is over and used *actuals*, by part; without them what it reserved, and no concurrency.
local function settle(base, channel, id, record, actuals, now)
  for place, part in ipairs(record.parts) do
    local it = limit_of(base, part[1], now)
    local cost, mark = part[2], part[5]
    local actual = part[4] and 0 or actuals and tonumber(actuals[place]) or cost
    local eased = false
    if not mark then
      give_back(it, cost)
      charge(it, actual, now)
      eased = actual < cost or it.waiting == FOR_OTHERS
    elseif actual < cost then
      eased = refund(it, cost - actual, mark, now)
    elseif actual > cost then
      charge(it, actual - cost, now)
    end
    if eased and it.waiting ~= NOBODY then
      wake(it, channel)
    end
  end
  drop_record(base, id)
end

-- Reservations whose gateway is gone are settled at what they reserved: the upstream may well have counted them.
local function reap(base, channel, now)
  local over = redis.call('ZRANGEBYSCORE', base .. 'leases', '-inf', written(now), 'LIMIT', 0, REAPED)
  for _, id in ipairs(over) do
    local record = record_of(base, id)
    if record then
      settle(base, channel, id, record, nil, now)
    else
      redis.call('ZREM', base .. 'leases', id)
    end
  end
end
