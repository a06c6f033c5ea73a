-- Comes before every script: numbers as the store keeps them, in text with spaces between.
local function numbers(text)
  local found = {}
  for number in string.gmatch(text, '%S+') do found[#found + 1] = tonumber(number) end
  return found
end

local function text(...)
  local parts = {...}
  for i, number in ipairs(parts) do parts[i] = string.format('%.0f', number) end
  return table.concat(parts, ' ')
end

local function millis(time) return time[1] * 1000 + math.floor(time[2] / 1000) end

