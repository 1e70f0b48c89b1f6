-- A gateway says that it is there. Tells the time, how many were there of late, and what the data is called.
-- KEYS: present (a sorted set, gateway -> ms), epoch (a string), seen (this gateway's own, ms). ARGV: its id, a name for
-- a new epoch. `seen` is told as it stood before: who knows of a later heartbeat knows that Redis lost what came after.
-- The epoch is set once and never expires: who finds another one than before knows that Redis lost what it knew.
local present, epoch = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', present, now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', present, '-inf', now - 5000)
redis.call('ZREMRANGEBYSCORE', present, now + 5000, '+inf') -- the clock was set back: the others come again
redis.call('PEXPIRE', present, 60000)
redis.call('SET', epoch, ARGV[2], 'NX')
local before = redis.call('GET', KEYS[3]) or ''
redis.call('SET', KEYS[3], string.format('%d', now), 'EX', 3600)
return { time[1], time[2], redis.call('ZCARD', present), redis.call('GET', epoch), before }
