-- A limit was learned or forgotten: of each the latest word holds. Hash `lessons` name -> text, sorted set `learned`
-- name -> date. ARGV: base, channel, gateway, name, date in Unix seconds, text.
local MOST = 20000
local KEPT_FOR = 30 * 86400
local base, channel, name, date = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local known = redis.call('ZSCORE', base .. 'learned', name)
if known and tonumber(known) > date then
  return 0
end
local old = redis.call('ZRANGEBYSCORE', base .. 'learned', '-inf', date - KEPT_FOR, 'LIMIT', 0, 8)
if not known and redis.call('ZCARD', base .. 'learned') >= MOST then
  old = redis.call('ZRANGE', base .. 'learned', 0, 0)
end
for _, gone in ipairs(old) do
  redis.call('HDEL', base .. 'lessons', gone)
  redis.call('ZREM', base .. 'learned', gone)
end
redis.call('HSET', base .. 'lessons', name, ARGV[6])
redis.call('ZADD', base .. 'learned', date, name)
redis.call('PUBLISH', channel, cjson.encode({ 'lesson', ARGV[3], ARGV[6] }))
return 1
