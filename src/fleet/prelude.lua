-- Comes before every script: numbers as the store keeps them, in text with spaces between.

-- The numbers of a text; nil where it does not have this many of them. No key is believed to be one that a script wrote: an
-- amount that is no number would compare as less than any other.
local function numbers(text, count)
  local found = {}
  if not text or #text > 300 then return nil end
  for part in string.gmatch(text, '%S+') do
    local number = tonumber(part)
    if not number or not (number >= 0 and number <= 9007199254740992) then return nil end
    found[#found + 1] = number
  end
  return #found >= count and found or nil
end

-- A hash of numbers: an array of names and texts as HGETALL gives it; nil where the key is another, or a field has fewer
-- numbers than this, that named "~" than 3.
local function read(key, count)
  local flat = redis.pcall('HGETALL', key)
  if flat.err then return nil end
  for i = 1, #flat, 2 do
    flat[i + 1] = numbers(flat[i + 1], flat[i] == '~' and 3 or count)
    if not flat[i + 1] then return nil end
  end
  return flat
end

local function text(...)
  local parts = {...}
  for i, number in ipairs(parts) do parts[i] = string.format('%.0f', number) end
  return table.concat(parts, ' ')
end

local function millis(time) return time[1] * 1000 + math.floor(time[2] / 1000) end

