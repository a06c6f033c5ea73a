-- Gives one proxy tokens of a rate that several share, atomically. fleet/bucket.rs is the same in Rust, and a test compares
-- them.
-- KEYS[1]: the bucket, a hash with one field for each proxy, and "~" for the epoch, the level and the time that it is of.
-- KEYS[2]: a pool that every proxy renews first, which knows whether the store lost its memory.
-- ARGV: numbers in the order of the first lines. The bucket fills by `count` in `per` milliseconds.
local id, seq = ARGV[1], tonumber(ARGV[2])
local count, per = tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl, skew = tonumber(ARGV[5]), tonumber(ARGV[6])
local stock, wants, claim = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local key, now = KEYS[1], millis(redis.call('TIME'))

local latest = now + ttl + skew
local memory = numbers(redis.call('HGET', KEYS[2], '~'), 3) or {0, 0, 0}
local epoch, learning = memory[1], math.min(memory[3], latest)
local flat, meta, stocks, mine, state = read(key, 3), {0, 0, 0}, 0, nil, 0
if not flat then
  -- Tokens that nobody knows of may be out.
  flat, meta, learning, state = {}, {-1, 0, 0}, latest, 2
end
for i = 1, #flat, 2 do
  if flat[i] == '~' then meta = flat[i + 1] end
end
local level, at = meta[2], math.min(meta[3], latest)
if meta[1] ~= epoch then
  -- It begins, or its memory was lost. It is empty when the tokens that were drawn before have ended.
  redis.call('DEL', key)
  flat, level, at = {}, 0, learning
end
local ended = {}
for i = 1, #flat, 2 do
  if flat[i] ~= '~' then
    local m = flat[i + 1]
    if m[3] > latest then
      -- The store's clock was ahead, and would keep this for as long.
      m[3] = latest
      redis.call('HSET', key, flat[i], text(unpack(m)))
    end
    stocks = stocks + m[1]
    if flat[i] == id then mine = m end
    if now >= m[3] then ended[#ended + 1] = i end
  end
end
if mine and seq <= mine[2] then return {} end
-- Filled beside the tokens that were out in the meantime: all together are never more than the count.
level = math.min(level + count * math.max(now - at, 0) / per, count - stocks)
at = math.max(at, now)
for _, i in ipairs(ended) do
  stocks = stocks - flat[i + 1][1]
  redis.call('HDEL', key, flat[i])
  if flat[i] == id then mine = nil end
end
if mine then stocks = stocks - mine[1] end
level = math.max(math.min(level, count - stocks - stock), 0)

local whole = math.floor(level)
local grant = math.min(math.max(wants - stock, 0), whole)
-- A query that lacks tokens takes all that it needs, or leaves them to others.
if claim > stock + grant and claim - stock <= whole then grant = claim - stock end
level, stock = level - grant, stock + grant
if stock == 0 then
  redis.call('HDEL', key, id)
else
  redis.call('HSET', key, id, text(stock, seq, latest))
end
redis.call('HSET', key, '~', string.format('%.0f %.17g %.0f', epoch, level, at))
redis.call('PEXPIRE', key, per + 60000)
return {grant, ttl, state}
