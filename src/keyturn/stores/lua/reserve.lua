-- Take all claims of an attempt or nothing.
-- ARGV: base, channel, attempt id, known version, number of scopes, the scopes, then of each claim its limit's name,
-- kind, capacity, three numbers of the kind (see limits.lua), the cost, and the flags: l late, m money, c concurrency.
-- Reply: code (1 reserved, 0 denied, 2 look again, 3 released), now, version, changed marks or nil, of each claim used,
-- held, seconds until unused, and of a denial seconds until the cost fits, and until anything does.
local base, channel, id, known = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = clock(base)
local kept = redis.call('MGET', base .. 'version', base .. 't:' .. id, base .. 'r:' .. id)
local version = tonumber(kept[1] or '0')
local changes, scopes, at = {}, {}, 6
for place = 1, tonumber(ARGV[5]) do
  scopes[place], at = ARGV[at], at + 1
end

local claims = {}
while at <= #ARGV do
  claims[#claims + 1] = {
    name = ARGV[at], spec = { ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5] },
    cost = tonumber(ARGV[at + 6]), flags = ARGV[at + 7],
  }
  at = at + 8
end

local function answer(code, rows)
  return { code, written(now), version, changes, rows or {} }
end

local function row_of(it)
  return { written(used(it, now)), written(it.held), written(whole_in(it, now)) }
end

local function limits_now()
  local found = {}
  for place, claim in ipairs(claims) do
    found[place] = limit_of(base, claim.name, now, claim.spec)
  end
  return found
end

local function rows_of(limits)
  local rows = {}
  for place, it in ipairs(limits) do
    rows[place] = row_of(it)
  end
  return rows
end

reap(base, channel, now)
if kept[2] then
  save_counters(now)
  return answer(3)
end
if kept[3] and record_of(base, id) then
  local rows = rows_of(limits_now())
  save_counters(now)
  return answer(1, rows)
end
if known ~= version then
  changes = changed_since(base, known, version)
  if newly_blocked(base, scopes, known > version and -1 or known, now) then
    save_counters(now)
    return answer(2)
  end
end

local taken, denied = {}, false
for place, claim in ipairs(claims) do
  local it = limit_of(base, claim.name, now, claim.spec)
  claim.asked, claim.cost = claim.cost, math.min(claim.cost, it.most)
  local free = claim.asked == 0 and string.find(claim.flags, 'm', 1, true)
  if not free and not fits(it, claim.cost, now) then
    denied = true
    break
  end
  it.held, taken[place] = it.held + claim.cost, it
end

if denied then
  local rows = {}
  for place, it in ipairs(taken) do
    it.held = it.held - claims[place].cost
  end
  for place, claim in ipairs(claims) do
    local it = taken[place] or limit_of(base, claim.name, now, claim.spec)
    local money = string.find(claim.flags, 'm', 1, true)
    local asked = claim.asked or claim.cost
    local seconds = money and wait_for_money(it, asked, now) or wait(it, math.min(asked, it.most), now)
    local any = 0
    if seconds > 0 then
      it.waiting = seconds == math.huge and FOR_OTHERS or math.max(it.waiting, FOR_TIME)
      any = money and wait_for_money(it, 1, now) or wait(it, 1, now)
    end
    local row = row_of(it)
    row[4], row[5] = written(seconds), written(any)
    rows[place] = row
  end
  save_counters(now)
  return answer(0, rows)
end

local parts = {}
for place, claim in ipairs(claims) do
  parts[place] = {
    claim.name, claim.cost, string.find(claim.flags, 'l', 1, true) ~= nil,
    string.find(claim.flags, 'c', 1, true) ~= nil, false,
  }
end
keep_record(base, id, { counted = false, parts = parts })
redis.call('ZADD', base .. 'leases', written(now + HELD_FOR), id)
local rows = rows_of(taken)
save_counters(now)
return answer(1, rows)
