-- Change a mark, never shortening one. ARGV: base, channel, scope, state or `-`, until, since, strikes, reason, and
-- `s` when it may be shortened. Of a clear, *since* is when the attempt that succeeded began: a later mark stays. Where
-- it is infinite the owner cleared it, which is kept as `s` too: also a rest that a success does not end is over then.
local base, channel, scope, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ends, since, strikes, reason = read(ARGV[5]), read(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local now = clock(base)
local text = redis.call('HGET', base .. 'marks', scope)
local mark = text and mark_of(text)
local shorten = ARGV[9]
if state == '-' then
  if mark and mark.state ~= '-' and (mark.since > since or mark.state == 'disabled' and since ~= math.huge) then
    return 0
  end
  if not mark or mark.state == '-' then
    return 0
  end
  shorten = since == math.huge and 's' or shorten
  ends, since, strikes, reason = now, math.min(since, now), 0, '-'
elseif mark and mark.state ~= '-' then
  strikes = math.max(strikes, mark.strikes)
  if shorten ~= 's' and ends < mark.ends then
    ends, state, reason = mark.ends, mark.state, mark.reason
  end
  since = math.max(since, mark.since)
  if ends == mark.ends and state == mark.state and since == mark.since and strikes == mark.strikes then
    return 0
  end
elseif ends <= now then
  return 0
end
forget_old(base, now)
local version = redis.call('INCR', base .. 'version')
local value = table.concat({
  string.format('%d', version), written(ends), written(since), strikes, state, reason, shorten == 's' and 's' or '-',
}, ' ')
redis.call('HSET', base .. 'marks', scope, value)
redis.call('ZADD', base .. 'changes', version, scope)
redis.call('ZADD', base .. 'ends', written(ends + FORGOTTEN_AFTER), scope)
redis.call('PUBLISH', channel, cjson.encode({ 'mark', version, scope, value }))
return 1
