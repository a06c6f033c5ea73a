-- Writes to one topic of the fleet's board and reads the news there, atomically.
-- KEYS[1]: a hash with "seq version ends value" for each entry, and "~" for "incarnation run seq version" of the topic.
-- KEYS[2]: a sorted set with the names of the entries by seq, the order in which they are read.
-- ARGV: run; the incarnation and seq read last; the most entries, and bytes and entries to read at once; then for each
-- entry to write: its name, its version (0: a change, whose version is counted here), its life in ms, its value.
local run, seen, cursor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, bytes_max, rows_max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local hash, order, time = KEYS[1], KEYS[2], redis.call('TIME')
local micros, now = time[1] * 1000000 + time[2], millis(time)
local DAY, YEARS = 86400000, 315360000000

local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

local function entry(name)
  local found = redis.call('HGET', hash, name)
  if not found then return nil end
  local seq, version, ends, value = string.match(found, '^(%d+) (%d+) (%d+) (.*)$')
  if not seq or #seq > 15 or #version > 15 or #ends > 15 then return nil end
  return {version = tonumber(version), ends = tonumber(ends), value = value}
end

local function forget(name)
  redis.call('HDEL', hash, name)
  redis.call('ZREM', order, name)
end

-- Keys that hold something else are replaced, and so are entries with numbers that no proxy wrote.
if not is(hash, 'hash') or not is(order, 'zset') then redis.call('DEL', hash, order) end
local meta = redis.call('HGET', hash, '~') or ''
local incarnation, known_run, seq, last = string.match(meta, '^(%d+) (%d+) (%d+) (%d+)$')
if not incarnation or #meta > 70 then
  redis.call('DEL', hash, order)
  incarnation, known_run, seq, last = 0, -1, 0, 0
end
incarnation, seq, last = tonumber(incarnation), tonumber(seq), tonumber(last)
-- Another run of the store's process may have lost the latest entries: everybody reads, and offers, all of them again.
if tonumber(known_run) ~= run then incarnation = math.max(incarnation + 1, micros) end

local given = {}
for i = 7, #ARGV, 4 do
  local name, version, life, value = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  local old, ends = entry(name), now + life
  if version == 0 then version = math.max(last + 1, now) end
  local is_newer = not old or version > old.version or (version == old.version and value > old.value)
  -- A version ten years ahead was counted by nobody.
  is_newer = is_newer and version <= math.max(last + 1, now + YEARS)
  -- The name is kept as long as any of its entries would be: an older one may come back until then.
  local is_longer = old and ends > old.ends + 1000
  given[#given + 1] = 0
  if is_newer then given[#given] = version end
  if not is_newer and is_longer then version, value = old.version, old.value end
  if is_newer or is_longer then
    seq, last = seq + 1, math.max(last, version)
    if old then ends = math.max(ends, old.ends) end
    redis.call('HSET', hash, name, text(seq, version, ends) .. ' ' .. value)
    redis.call('ZADD', order, seq, name)
  end
end
local excess = redis.call('ZCARD', order) - kept
if excess > 0 then
  for _, name in ipairs(redis.call('ZRANGE', order, 0, excess - 1)) do forget(name) end
end

if incarnation ~= seen then cursor = 0 end
local rows, bytes, upto = {}, 0, cursor
local news = redis.call('ZRANGEBYSCORE', order, '(' .. text(cursor), '+inf', 'WITHSCORES', 'LIMIT', 0, rows_max)
for i = 1, #news, 2 do
  local name, found = news[i], entry(news[i])
  if not found or found.ends <= now then
    forget(name)
  else
    bytes = bytes + #name + #found.value
    if bytes > bytes_max and #rows > 0 then break end
    rows[#rows + 1] = {name, found.version, found.ends - now, found.value}
  end
  upto = tonumber(news[i + 1])
end
if #news < 2 * rows_max and (#news == 0 or upto == tonumber(news[#news])) then upto = seq end
redis.call('HSET', hash, '~', text(incarnation, run, seq, last))
redis.call('PEXPIRE', hash, DAY)
redis.call('PEXPIRE', order, DAY)
return {incarnation, upto, seq, given, rows}
