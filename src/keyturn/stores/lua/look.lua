-- What became known of marks. ARGV: base, channel, known version, `all` to be told of every mark and round robin.
-- Reply: now, version, changed marks or nil when there are too many, and with `all` provider, index, provider, index …
-- and name, learned limit, name, learned limit …
local base, known = ARGV[1], tonumber(ARGV[3])
local now, version = clock(base), version_of(base)
if ARGV[4] == 'all' then
  return { written(now), version, redis.call('HGETALL', base .. 'marks'), redis.call('HGETALL', base .. 'turns'),
    redis.call('HGETALL', base .. 'lessons') }
end
return { written(now), version, changed_since(base, known, version), {}, {} }
