-- The round robin of a provider stands at an index; the last word holds. ARGV: base, channel, gateway, provider, index.
local base, channel = ARGV[1], ARGV[2]
redis.call('HSET', base .. 'turns', ARGV[4], ARGV[5])
redis.call('PUBLISH', channel, cjson.encode({ 'turn', ARGV[3], ARGV[4], tonumber(ARGV[5]) }))
return 1
