-- These attempts are still under way. ARGV: base, channel, attempt ids. Reply: those that are not known here.
local base = ARGV[1]
local ends, unknown = written(clock(base) + HELD_FOR), {}
for place = 3, #ARGV do
  if redis.call('ZSCORE', base .. 'leases', ARGV[place]) then
    redis.call('ZADD', base .. 'leases', 'XX', ends, ARGV[place])
  else
    unknown[#unknown + 1] = ARGV[place]
  end
end
return unknown
