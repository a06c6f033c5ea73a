-- Renews one proxy's lease on one pool, atomically. fleet/pool.rs is the same in Rust, and a test compares them.
-- KEYS[1]: the pool, a hash with one field for each proxy, and "~" for epoch, run, the end of the learning phase, and the
-- congestion window of all proxies: cuts, cause, bytes, and until when it counts. Fields are added at the end only.
-- KEYS[2], if any: a pool that every proxy renews first, which knows whether the store lost its memory before this one began.
-- ARGV: numbers in the order of the first lines. Amounts are pairs of bytes and queries.
local id, run = ARGV[1], tonumber(ARGV[2])
local seq, seen_epoch = tonumber(ARGV[3]), tonumber(ARGV[4])
local pool = {tonumber(ARGV[5]), tonumber(ARGV[6])}
local ttl, skew, hold = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local held = {tonumber(ARGV[10]), tonumber(ARGV[11])}
local wants = {tonumber(ARGV[12]), tonumber(ARGV[13])}
local claim, waited = tonumber(ARGV[14]), tonumber(ARGV[15])
local weight = tonumber(ARGV[16])
local load, has = {tonumber(ARGV[17]), tonumber(ARGV[18])}, {tonumber(ARGV[19]), tonumber(ARGV[20])}
local cuts, cause, window, grown = tonumber(ARGV[21]), tonumber(ARGV[22]), tonumber(ARGV[23]), tonumber(ARGV[24])
local terms = tonumber(ARGV[25])
local key, now = KEYS[1], millis(redis.call('TIME'))

-- A part of the pool for each, by weight and no more than it wants; what one does not want is the others'.
local function divide(whole, members, r)
  local given, rest, total, waiting = {}, whole, 0, members
  for _, m in ipairs(members) do total = total + m.weight end
  while true do
    local level, among, still = rest, total, {}
    for _, m in ipairs(waiting) do
      if m.wants[r] * among <= level * m.weight then
        given[m.id], rest, total = m.wants[r], rest - m.wants[r], total - m.weight
      else
        still[#still + 1] = m
      end
    end
    if #still == #waiting then break end
    waiting = still
  end
  local sum, before = 0, 0
  for _, m in ipairs(waiting) do
    sum = sum + m.weight
    local upto = math.floor(rest * sum / total)
    given[m.id], before = upto - before, upto
  end
  return given
end

local latest = now + ttl + skew
local flat, members, mine, taken, gone = read(key, 13), {}, nil, {0, 0}, 0
local meta, state = {0, 0, 0}, 0
if not flat then
  -- Nobody knows any more what is leased: a lost memory.
  redis.call('DEL', key)
  flat, state = {}, 2
elseif #flat == 0 and KEYS[2] then
  meta = numbers(redis.call('HGET', KEYS[2], '~'), 3) or meta
end
for i = 1, #flat, 2 do
  local name, n = flat[i], flat[i + 1]
  if name == '~' then
    meta = n
  else
    if n[10] > latest then
      -- The store's clock was ahead, and would keep this for as long.
      n[10] = latest
      redis.call('HSET', key, name, text(unpack(n)))
    end
    local m = {id = name, grant = {n[1], n[2]}, wants = {n[3], n[4]}, claim = n[5], since = n[7],
      weight = n[8], seq = n[9], ends = n[10], hold = n[11], load = {n[12], n[13]},
      terms = n[14] or terms}
    if now >= m.ends + m.hold then
      redis.call('HDEL', key, name)
    elseif name == id then
      mine = m
    else
      taken = {taken[1] + m.grant[1], taken[2] + m.grant[2]}
      if now < m.ends then members[#members + 1] = m else gone = gone + m.grant[1] end
    end
  end
end
if mine and seq <= mine.seq then return {} end
local epoch, learning, fresh = meta[1], math.min(meta[3], latest), math.min(meta[7] or 0, latest)
if epoch == 0 or meta[2] ~= run or epoch < seen_epoch then
  epoch, learning, fresh = math.max(epoch, seen_epoch) + 1, latest, 0
end
-- A later cut replaces the window, and growth adds up. It is forgotten when nobody has renewed for a time to live.
if now < fresh and cuts < meta[4] then
  cuts, cause, window = meta[4], meta[5], meta[6]
elseif now < fresh and cuts == meta[4] then
  cause, window = meta[5], math.max(window, meta[6] + grown)
end
local since = math.max(now - waited, 0)
mine = {id = id, grant = held, wants = wants, claim = claim, since = since, weight = weight}
local others, differing = {0, 0}, 0
for _, m in ipairs(members) do
  others = {others[1] + m.load[1], others[2] + m.load[2]}
  if m.terms ~= terms then differing = differing + 1 end
end
members[#members + 1] = mine
table.sort(members, function(a, b) return a.id < b.id end)

local target = {{}, {}}
if now >= learning then
  target = {divide(pool[1], members, 1), divide(pool[2], members, 2)}
  -- A query that does not fit its proxy's fair part gets all that it needs, from what the others' parts cannot be used for:
  -- the one whose tenant has waited longest for its turn in any case, and then all that fit beside it.
  local unfair, useful, sum = {}, {}, 0
  for _, m in ipairs(members) do
    useful[m.id] = target[1][m.id]
    if m.claim > useful[m.id] then
      useful[m.id] = math.min(useful[m.id], m.grant[1])
      unfair[#unfair + 1] = m
    end
    sum = sum + useful[m.id]
  end
  table.sort(unfair, function(a, b) return a.since < b.since or (a.since == b.since and a.id < b.id) end)
  local left, chosen, rest = pool[1], {}, {}
  for i, m in ipairs(unfair) do
    local need = math.min(m.claim, pool[1])
    local more = math.max(need - useful[m.id], 0)
    if i == 1 or sum + more <= pool[1] then
      sum, left, chosen[m.id] = sum + more, left - need, need
    end
  end
  for _, m in ipairs(members) do
    if not chosen[m.id] then rest[#rest + 1] = {id = m.id, weight = m.weight, wants = {useful[m.id]}} end
  end
  target[1] = divide(left, rest, 1)
  for name, need in pairs(chosen) do target[1][name] = need end
end
-- What is held counts, also where it was given away since, to a proxy that was cut off while the store lost its memory, or
-- where others wait for it.
local grant, kept = {}, {}
for r = 1, 2 do
  local due = has[r]
  if now >= learning then due = target[r][id] end
  grant[r] = math.min(due, math.max(pool[r] - taken[r], 0))
  kept[r] = math.max(grant[r], held[r])
end
local count, idle = #members, true
for r = 1, 2 do idle = idle and kept[r] == 0 and wants[r] == 0 and load[r] == 0 end
if idle then
  redis.call('HDEL', key, id)
  count = count - 1
else
  redis.call('HSET', key, id, text(kept[1], kept[2], wants[1], wants[2], claim, waited, since, weight, seq,
    latest, hold, load[1], load[2], terms))
end
redis.call('HSET', key, '~', text(epoch, run, learning, cuts, cause, window, latest))
redis.call('PEXPIRE', key, 86400000)
if now < learning then state = math.max(state, 1) end
return {grant[1], grant[2], epoch, ttl, state, count, others[1], others[2], cuts, cause, window, differing, gone}
