-- The counters of core/counters.py over hashes, one a limit. Amounts are whole numbers below 2^53, times Unix seconds.
--
--   k kind: r rolling, c calendar (or month), b bucket, i in flight        h held        w whether somebody waits
--   r   a width, b span, s sum, n newest slot, o oldest slot; a field for each slot, named by its number
--   c   a start, b end of the period, x end of the one after, s used
--   b   a seconds, b capacity, s level, n when it was drained, o all that ever left it
local NOBODY, FOR_TIME, FOR_OTHERS = 0, 1, 2
local DAY = 86400

local function written(x)
  if x == math.floor(x) and x < 1e15 and x > -1e15 then
    return string.format('%d', x)
  elseif x == math.huge then
    return 'inf'
  end
  return string.format('%.17g', x)
end

local function read(text)
  if text == 'inf' then
    return math.huge
  end
  return tonumber(text)
end

local function number_of(slot)
  return string.format('%d', slot)
end

-- The slot that a moment is in. Rounded as Python's `//` rounds, so that both count alike.
local function slot_at(moment, width)
  local rest = math.fmod(moment, width)
  local whole = (moment - rest) / width
  local slot = math.floor(whole)
  if whole - slot > 0.5 then
    slot = slot + 1
  end
  return slot
end

local opened = {}

-- The counter of *key*, read once a script. *spec*: kind, capacity and what the kind needs, of who knows the limit.
local function counter(key, now, spec)
  local it = opened[key]
  if not it then
    local got = redis.call('HMGET', key, 'k', 'a', 'b', 's', 'n', 'o', 'x', 'h', 'w')
    it = { key = key, kind = got[1] or '', fresh = {}, gone = {} }
    it.a, it.b, it.x = read(got[2] or '0'), read(got[3] or '0'), read(got[7] or '0')
    it.s, it.n, it.o = read(got[4] or '0'), read(got[5] or '-1'), read(got[6] or '-1')
    it.held, it.waiting = read(got[8] or '0'), tonumber(got[9] or '0')
    it.was = { it.kind, it.a, it.b, it.s, it.n, it.o, it.x, it.held, it.waiting }
    opened[key] = it
  end
  if not spec then
    return it
  end
  local first = it.kind == ''
  it.kind, it.capacity, it.most = spec[1], read(spec[2]), read(spec[2])
  if it.kind == 'r' then
    it.a, it.b = read(spec[3]), read(spec[4])
  elseif it.kind == 'c' then
    local starts, ends, after = read(spec[3]), read(spec[4]), read(spec[5])
    if now >= ends then
      starts, ends, after = ends, after, 0
    end
    if first or it.a < starts or it.a >= ends then
      it.a, it.s = starts, 0
    end
    it.b, it.x = ends, after
  elseif it.kind == 'b' then
    if first then
      it.n, it.o = 0, 0
    elseif it.b ~= it.capacity and now > it.n then
      local gone = math.min(it.s, (now - it.n) * (it.b * 0.99 / it.a))
      it.s, it.o, it.n = it.s - gone, it.o + gone, now
    end
    it.a, it.b = read(spec[3]), it.capacity
    it.most = math.floor(math.max(1, it.capacity * 0.99))
  end
  it.touched = true
  return it
end

local function size_of(it)
  return math.max(1, it.b * 0.99)
end

local function rate_of(it)
  return it.b * 0.99 / it.a
end

local function end_of(it, slot)
  return (slot + it.b) * it.a
end

local function slots_from(it, first, last)
  local names = {}
  for slot = first, last do
    names[#names + 1] = number_of(slot)
  end
  return names
end

local function expire_slots(it, now)
  if it.o < 0 or now < end_of(it, it.o) then
    return
  end
  local first = it.o
  while first <= it.n and now >= end_of(it, first) do
    first = first + 1
  end
  local names = slots_from(it, it.o, first - 1)
  for place, amount in ipairs(redis.call('HMGET', it.key, unpack(names))) do
    it.s = it.s - (tonumber(amount or '0') + (it.fresh[names[place]] or 0))
    it.fresh[names[place]] = nil
  end
  it.gone[#it.gone + 1] = names
  it.o = first > it.n and -1 or first
  it.touched = true
end

-- What is used now; a period that is over is left, a bucket drained, slots that no longer count are taken away.
local function used(it, now)
  if it.kind == 'r' then
    expire_slots(it, now)
    return it.s
  elseif it.kind == 'c' then
    if now >= it.b then
      if now < it.x then
        it.a, it.b = it.b, it.x
      else
        it.a, it.b = math.max(it.b, it.x), math.huge
      end
      it.x, it.s, it.touched = 0, 0, true
    end
    return it.s
  elseif it.kind == 'b' then
    if now > it.n then
      local gone = math.min(it.s, (now - it.n) * rate_of(it))
      it.s, it.o, it.n, it.touched = it.s - gone, it.o + gone, now, true
    end
    return math.max(0, math.ceil(it.s - 1e-3))
  end
  return 0
end

local function fits(it, cost, now)
  local taken = used(it, now)
  if it.kind == 'b' then
    return it.s + it.held + cost <= size_of(it) + 1e-3
  end
  return taken + it.held + cost <= it.capacity
end

-- What is in the slot at *place* of those that count, from the oldest on. A denial asks twice, mostly for the first few,
-- and changes nothing between: so some are read at once, each only once a script.
local function amount_at(it, place)
  if it.read_from ~= it.o then
    it.amounts, it.read_from = {}, it.o
  end
  if not it.amounts[place] then
    local first = it.o + place - 1
    local names = slots_from(it, first, math.min(it.n, first + 15))
    for more, amount in ipairs(redis.call('HMGET', it.key, unpack(names))) do
      it.amounts[place + more - 1] = tonumber(amount or '0') + (it.fresh[names[more]] or 0)
    end
  end
  return it.amounts[place]
end

local function wait(it, cost, now)
  if fits(it, cost, now) then
    return 0
  end
  if it.kind == 'r' then
    local excess = it.s + it.held + cost - it.capacity
    if it.o >= 0 then
      for place = 1, it.n - it.o + 1 do
        excess = excess - amount_at(it, place)
        if excess <= 0 then
          return end_of(it, it.o + place - 1) - now
        end
      end
    end
  elseif it.kind == 'c' and it.held + cost <= it.capacity then
    return it.b - now + 1e-6
  elseif it.kind == 'b' and it.held + cost <= size_of(it) then
    return math.max(it.n - now, 0) + (it.s + it.held + cost - size_of(it)) / rate_of(it)
  end
  return math.huge
end

-- A budget that is too small even without what others hold is waited for without it.
local function wait_for_money(it, cost, now)
  if cost == 0 or fits(it, cost, now) then
    return 0
  end
  if used(it, now) + cost <= it.capacity then
    return math.huge
  end
  local held = it.held
  it.held = 0
  local found = wait(it, cost, now)
  it.held = held
  return found
end

local function whole_in(it, now)
  if used(it, now) == 0 then
    return 0
  elseif it.kind == 'r' then
    return end_of(it, it.n) - now
  elseif it.kind == 'c' then
    return it.b - now + 1e-6
  end
  return it.s / rate_of(it)
end

-- Count *amount* in the slot of *at*, which is not after now. The mark returned is what `refund` needs.
local function charge(it, amount, now, at)
  used(it, now)
  it.touched = true
  if it.kind == 'r' then
    local slot = slot_at(at or now, it.a)
    if not at and slot < it.n then
      slot = it.n
    end
    it.n = math.max(slot, it.n)
    if it.o < 0 or slot < it.o then
      it.o = slot
    end
    local name = number_of(slot)
    it.fresh[name] = (it.fresh[name] or 0) + amount
    it.s = it.s + amount
    return slot
  elseif it.kind == 'c' then
    it.s = it.s + amount
    return it.a
  elseif it.kind == 'b' then
    it.s = it.s + amount
    return it.s + it.o
  end
  return 0
end

local function refund(it, amount, mark, now)
  used(it, now)
  local back = 0
  if it.kind == 'r' then
    local name = number_of(mark)
    if it.o >= 0 and mark >= it.o then
      back = math.min(amount, tonumber(redis.call('HGET', it.key, name) or '0') + (it.fresh[name] or 0))
    end
    if back > 0 then
      it.fresh[name] = (it.fresh[name] or 0) - back
      it.s = it.s - back
    end
  elseif it.kind == 'c' and mark == it.a then
    back = math.min(amount, it.s)
    it.s = it.s - math.max(0, back)
  elseif it.kind == 'b' then
    back = math.min(amount, mark - it.o)
    if back > 0 then
      it.s, it.o = math.max(0, it.s - back), it.o + back
    end
  end
  it.touched = it.touched or back > 0
  return back > 0
end

local function give_back(it, cost)
  it.held = math.max(0, it.held - cost)
  it.touched = true
end

-- How long a limit that nobody asks about is remembered: beyond its window, and a day that its holders may need.
local function rests(it, now)
  if it.kind == 'r' then
    return it.a * it.b + DAY
  elseif it.kind == 'c' then
    return it.b == math.huge and 40 * DAY or it.b - now + DAY
  elseif it.kind == 'b' then
    return it.a + DAY
  end
  return DAY
end

local FIELDS = { 'k', 'a', 'b', 's', 'n', 'o', 'x', 'h', 'w' }

local function save_counters(now)
  for key, it in pairs(opened) do
    if it.touched and it.kind ~= '' then
      local changed = {}
      for place, value in ipairs({ it.kind, it.a, it.b, it.s, it.n, it.o, it.x, it.held, it.waiting }) do
        if value ~= it.was[place] then
          changed[#changed + 1] = FIELDS[place]
          changed[#changed + 1] = place == 1 and value or written(value)
        end
      end
      for _, names in ipairs(it.gone) do
        redis.call('HDEL', key, unpack(names))
      end
      for name, amount in pairs(it.fresh) do
        if amount ~= 0 then
          redis.call('HINCRBY', key, name, number_of(amount))
        end
      end
      if #changed > 0 then
        redis.call('HSET', key, unpack(changed))
        if it.kind == 'i' or it.n ~= it.was[5] or it.b ~= it.was[3] then
          redis.call('EXPIRE', key, math.ceil(rests(it, now)))
        end
      end
    end
  end
end
