"""How the script inside Envoy finds `model` in the body of a request: in JSON, or in the form that brings a file.

The whole body is there already, since Envoy must know the model before it can send anything on; the question is what reading costs the
thread that all requests share. Strings, which are nearly all of a big body, are passed over at the speed of memchr. The native filter for
this (json_to_metadata) builds a tree of the whole body, and can neither tell a missing name from broken JSON nor ask anybody to wait.

For every body that is JSON the answer is what Python's `json` gives: the last `model` of the outermost object. What is not JSON is found
out only where it stands in the way; the engine says so of the rest.
"""

from __future__ import annotations

SCRIPT = r"""
-- Every string, quote and bracket is a step. It bounds the time that a hostile body takes from all on this thread: a tenth of a second.
local STEPS_MAX = 2000000
-- A byte of a name can be written as an escape of six.
local WRITTEN_NAME_BYTES_MAX = 6 * NAME_BYTES_MAX
local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
local OPENING, CLOSING = {[91] = true, [123] = true}, {[93] = true, [125] = true}
local DIGITS = {}
for digit = 48, 57 do DIGITS[digit] = true end
local OBJECT, OBJECT_END = 123, 125
local HEAD_BYTES_MAX = 2048
local NOT_JSON = "the body is not valid JSON"
local NO_MODEL = "you must provide a model parameter"
local LETTERS = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

local function in_utf8(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64) end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local function is_utf8(text)
  local rest = text:gsub("[\194-\223][\128-\191]", "."):gsub("[\224-\239][\128-\191][\128-\191]", ".")
  return not rest:gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "."):find("[\128-\255]")
end

-- The code point that is written at `at` as \uXXXX or as two of them, and where the text goes on.
local function code_point(text, at)
  local high = tonumber(text:match("^\\u(%x%x%x%x)", at) or "", 16)
  if high == nil then return nil, at end
  local low = high >= 0xD800 and high < 0xDC00 and tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at + 6) or "", 16)
  if low then return 0x10000 + (high - 0xD800) * 1024 + low - 0xDC00, at + 12 end
  -- Half a pair is no character.
  return (high >= 0xD800 and high < 0xE000) and 0xFFFD or high, at + 6
end

-- What a string in JSON means; nil where it means nothing.
local function unescaped(text)
  local parts, at = {}, 1
  while true do
    local slash = text:find("\\", at, true)
    parts[#parts + 1] = text:sub(at, slash and slash - 1)
    if slash == nil then break end
    local letter, code = LETTERS[text:sub(slash + 1, slash + 1)], nil
    at = slash + 2
    if letter == nil then
      code, at = code_point(text, slash)
      letter = code and in_utf8(code)
    end
    if letter == nil then return nil end
    parts[#parts + 1] = letter
  end
  return table.concat(parts)
end

-- Of the body that is being read: reading never waits, so there is one at a time.
local steps_left = 0

local function step()
  steps_left = steps_left - 1
  return steps_left > 0
end

-- The closing quote of the string whose inside begins at `at`: the first one with an even number of backslashes before it.
local function closing_quote(text, at)
  while step() do
    at = text:find('"', at, true)
    if at == nil then return nil end
    local before = at - 1
    while text:byte(before) == BACKSLASH do before = before - 1 end
    if (at - before) % 2 == 1 then return at end
    at = at + 1
  end
end

local function after_space(text, at)
  return text:match("^[ \t\r\n]*()", at)
end

-- Where the text goes on after the array or object that begins at `at`.
local function after_nested(text, at)
  local depth = 0
  while step() do
    at = text:find('["%[%]{}]', at)
    local byte = at and text:byte(at)
    if byte == QUOTE then at = closing_quote(text, at + 1) end
    if at == nil then return nil end
    if OPENING[byte] then depth = depth + 1 end
    if CLOSING[byte] then depth = depth - 1 end
    at = at + 1
    if depth == 0 then return at end
    -- A prompt in tokens may be a million numbers.
    if DIGITS[text:byte(at)] then at = text:match("^[%d, ]*()", at) end
  end
end

local function is_model_key(written)
  return written == "model" or (#written <= 30 and written:find("\\", 1, true) ~= nil and unescaped(written) == "model")
end

-- Where the text goes on after the value at `at`, and the value as it is written if it is a string, else false.
local function after_value(text, at)
  local byte = text:byte(at)
  if byte == QUOTE then
    local quote = closing_quote(text, at + 1)
    return quote and quote + 1, quote and text:sub(at + 1, quote - 1)
  end
  if OPENING[byte] then return after_nested(text, at), false end
  return step() and text:match("^[%w+%-.]+()", at), false
end

-- The next member of the outermost object: where the text goes on, its key and its value as they are written.
local function after_member(text, at)
  local quote = text:byte(at) == QUOTE and closing_quote(text, at + 1)
  local colon = quote and after_space(text, quote + 1)
  if not quote or text:byte(colon) ~= COLON then return nil end
  local after, value = after_value(text, after_space(text, colon + 1))
  return after and after_space(text, after), text:sub(at + 1, quote - 1), value
end

-- Whether there is an object and nothing behind it; and its last `model` as it is written: false where it is no string, nil where there is
-- none.
local function written_model(text)
  local at, found = after_space(text, text:sub(1, 3) == "\239\187\191" and 4 or 1), nil
  if text:byte(at) ~= OBJECT then return false end
  at = after_space(text, at + 1)
  if text:byte(at) ~= OBJECT_END then
    repeat
      local key, value
      at, key, value = after_member(text, at)
      if not at then return false end
      if is_model_key(key) then found = value end
      local goes_on = text:byte(at) == COMMA
      if goes_on then at = after_space(text, at + 1) end
    until not goes_on
  end
  return text:byte(at) == OBJECT_END and after_space(text, at + 1) > #text, found
end

-- The model's name, or nil and what is wrong.
local function model_in_json(text)
  steps_left = STEPS_MAX
  local is_good, written = written_model(text)
  if steps_left <= 0 then return nil, "the body has more than " .. STEPS_MAX .. " values" end
  if not is_good then return nil, NOT_JSON end
  if written == nil or written == "" then return nil, NO_MODEL end
  if not written then return nil, "model must be a string" end
  if #written > WRITTEN_NAME_BYTES_MAX then return nil, "model is longer than any model's name" end
  local name = unescaped(written)
  if name == nil or not is_utf8(name) then return nil, NOT_JSON end
  return name
end

-- The last field of that name in a form, as in multipart/form-data.
local function model_in_form(text, boundary)
  local mark, found = "--" .. boundary, nil
  local _, at = text:find(mark, 1, true)
  while at ~= nil do
    local head, inside = text:sub(at + 1, at + HEAD_BYTES_MAX):match("^(.-\r\n)\r\n()")
    local next_at, next_end = text:find("\r\n" .. mark, at, true)
    if head ~= nil and next_at ~= nil and (head:find('[; ]name="model"') or head:find("[; ]name=model[;\r]")) then
      found = text:sub(at + inside, next_at - 1)
    end
    at = next_end
  end
  if found == nil or found == "" or #found > NAME_BYTES_MAX or not is_utf8(found) then return nil, NO_MODEL end
  return found
end
"""
