-- One gateway told all it knew after a loss. ARGV: base, channel, gateway, the key that names the present data.
-- Reply: how many have told, and for how many seconds the first of them has waited.
local base = ARGV[1]
local now = clock(base)
local joined = base .. 'joined:' .. (redis.call('GET', ARGV[4]) or '')
redis.call('ZADD', joined, 'NX', written(now), ARGV[3])
redis.call('EXPIRE', joined, 3600)
local first = redis.call('ZRANGE', joined, 0, 0, 'WITHSCORES')
return { redis.call('ZCARD', joined), written(now - tonumber(first[2])) }
