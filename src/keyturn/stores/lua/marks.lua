-- Marks: hash `marks` scope -> "version until since strikes state reason shortened", a cleared one with the state `-`.
-- Sorted set `changes` scope -> version; `ends` scope -> when it may be forgotten; `floor`: below it, changes are gone.
local TOLD = 64
local FORGOTTEN_AFTER = 3600

local function version_of(base)
  return tonumber(redis.call('GET', base .. 'version') or '0')
end

local function mark_of(text)
  local version, ends, since, strikes, state, reason = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return {
    version = tonumber(version), ends = read(ends), since = read(since), strikes = tonumber(strikes),
    state = state, reason = reason,
  }
end

-- What changed after *known*: scope, mark, scope, mark …; or false: too much, or too long ago, to be told one by one.
local function changed_since(base, known, version)
  if known == version then
    return {}
  end
  if known > version or known < tonumber(redis.call('GET', base .. 'floor') or '0') then
    return false
  end
  local scopes = redis.call('ZRANGEBYSCORE', base .. 'changes', '(' .. known, '+inf', 'LIMIT', 0, TOLD + 1)
  if #scopes > TOLD then
    return false
  end
  local found = {}
  for _, scope in ipairs(scopes) do
    found[#found + 1] = scope
    found[#found + 1] = redis.call('HGET', base .. 'marks', scope) or ''
  end
  return found
end

-- Whether a mark that is newer than *known* forbids any of *scopes*.
local function newly_blocked(base, scopes, known, now)
  if #scopes == 0 then
    return false
  end
  for _, text in ipairs(redis.call('HMGET', base .. 'marks', unpack(scopes))) do
    if text then
      local mark = mark_of(text)
      if mark.version > known and mark.state ~= '-' and mark.ends > now then
        return true
      end
    end
  end
  return false
end

local function forget_old(base, now)
  local floor = tonumber(redis.call('GET', base .. 'floor') or '0')
  for _, scope in ipairs(redis.call('ZRANGEBYSCORE', base .. 'ends', '-inf', written(now), 'LIMIT', 0, 8)) do
    floor = math.max(floor, tonumber(redis.call('ZSCORE', base .. 'changes', scope) or '0'))
    redis.call('HDEL', base .. 'marks', scope)
    redis.call('ZREM', base .. 'changes', scope)
    redis.call('ZREM', base .. 'ends', scope)
    redis.call('SET', base .. 'floor', floor)
  end
end
