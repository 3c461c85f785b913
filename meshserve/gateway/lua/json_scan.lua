-- Find `model` in the body of a request to an LLM: in JSON, or in a form with a file.
--
-- The whole body is buffered, because Envoy must know the model before it can forward anything. The
-- scan must be fast, because all requests share its thread: strings, nearly all of a large body,
-- are skipped at the speed of memchr.
--
-- For every body that is JSON the result is that of Python's `json`: the last `model` of the
-- outermost object. Not all broken JSON is noticed here; the engine refuses the rest.

local json_scan = {}

json_scan.NOT_JSON = "the body is not valid JSON"
json_scan.NOT_OBJECT = "the body must be a JSON object"
json_scan.NO_MODEL = "you must provide a model parameter"

-- Each string, quote and bracket is a step. The bound limits the time of a hostile body to 0.1 s.
local STEPS_MAX = 2000000
-- One byte of a name may be written as an escape of six bytes, \uXXXX.
local WRITTEN_NAME_BYTES_MAX = 6 * shared.NAME_BYTES_MAX
local WRITTEN_KEY_BYTES_MAX = 6 * #"model"
local FORM_HEAD_BYTES_MAX = 2048
local BYTE_ORDER_MARK = "\239\187\191"
local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
local OBJECT, OBJECT_END = 123, 125
local OPENING, CLOSING = {[91] = true, [123] = true}, {[93] = true, [125] = true}
local DIGITS = {}
for digit = 48, 57 do DIGITS[digit] = true end
local ESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/",
  b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

-- Return the code point's bytes in UTF-8 (RFC 3629).
local function to_utf8(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  local last = 0x80 + code % 64
  if code < 0x800 then return char(0xC0 + floor(code / 64), last) end
  local third = 0x80 + floor(code / 64) % 64
  if code < 0x10000 then return char(0xE0 + floor(code / 4096), third, last) end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, third, last)
end

function json_scan.is_utf8(text)
  local rest = text:gsub("[\194-\223][\128-\191]", ".")
  rest = rest:gsub("[\224-\239][\128-\191][\128-\191]", ".")
  return not rest:gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "."):find("[\128-\255]")
end

-- Return the code point of the \uXXXX, or of the surrogate pair of two of them, at `position`, and
-- the position behind; nil if the text has none there.
local function code_point(text, position)
  local high = tonumber(text:match("^\\u(%x%x%x%x)", position) or "", 16)
  if high == nil then return nil, position end
  local is_high_surrogate = high >= 0xD800 and high < 0xDC00
  local low = is_high_surrogate and text:match("^\\u([dD][c-fC-F]%x%x)", position + 6)
  if low then
    return 0x10000 + (high - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00, position + 12
  end
  -- Half a surrogate pair is no character and becomes U+FFFD.
  return (high >= 0xD800 and high < 0xE000) and 0xFFFD or high, position + 6
end

-- Return the text of a JSON string without escapes, nil if an escape is invalid. `written` is what
-- the body has between the quotes.
local function unescape(written)
  local parts, position = {}, 1
  while true do
    local backslash = written:find("\\", position, true)
    parts[#parts + 1] = written:sub(position, backslash and backslash - 1)
    if backslash == nil then break end
    local character = ESCAPES[written:sub(backslash + 1, backslash + 1)]
    position = backslash + 2
    if character == nil then
      local code
      code, position = code_point(written, backslash)
      character = code and to_utf8(code)
    end
    if character == nil then return nil end
    parts[#parts + 1] = character
  end
  return table.concat(parts)
end

-- Steps left for the body that is being read. One variable is enough: reading never yields.
local steps_left = 0

local function step()
  steps_left = steps_left - 1
  return steps_left > 0
end

-- Return the position of the quote that closes the string whose inside begins at `position`: the
-- first quote with an even number of backslashes before it.
local function closing_quote(text, position)
  while step() do
    position = text:find('"', position, true)
    if position == nil then return nil end
    local before = position - 1
    while text:byte(before) == BACKSLASH do before = before - 1 end
    if (position - before) % 2 == 1 then return position end
    position = position + 1
  end
end

local function after_space(text, position)
  return text:match("^[ \t\r\n]*()", position)
end

-- Return the position behind the array or object that begins at `position`.
local function after_nested(text, position)
  local depth = 0
  while step() do
    position = text:find('["%[%]{}]', position)
    local byte = position and text:byte(position)
    if byte == QUOTE then position = closing_quote(text, position + 1) end
    if position == nil then return nil end
    if OPENING[byte] then depth = depth + 1 end
    if CLOSING[byte] then depth = depth - 1 end
    position = position + 1
    if depth == 0 then return position end
    -- A prompt may be a list of a million token numbers, which are skipped in one step.
    if DIGITS[text:byte(position)] then position = text:match("^[%d, ]*()", position) end
  end
end

local function is_model_key(written)
  if written == "model" then return true end
  local is_escaped = #written <= WRITTEN_KEY_BYTES_MAX and written:find("\\", 1, true) ~= nil
  return is_escaped and unescape(written) == "model"
end

-- Return the position behind the value at `position`, and the value as written if it is a string,
-- otherwise false.
local function after_value(text, position)
  local byte = text:byte(position)
  if byte == QUOTE then
    local quote = closing_quote(text, position + 1)
    return quote and quote + 1, quote and text:sub(position + 1, quote - 1)
  end
  if OPENING[byte] then return after_nested(text, position), false end
  return step() and text:match("^[%w+%-.]+()", position), false
end

-- Return the position behind the member of an object at `position`, its key and its value, both as
-- written.
local function after_member(text, position)
  local quote = text:byte(position) == QUOTE and closing_quote(text, position + 1)
  local colon = quote and after_space(text, quote + 1)
  if not quote or text:byte(colon) ~= COLON then return nil end
  local after, value = after_value(text, after_space(text, colon + 1))
  return after and after_space(text, after), text:sub(position + 1, quote - 1), value
end

-- Return whether the text is one object, and its last `model` as written: false if the value is not
-- a string, nil if the object has no such key.
local function written_model(text)
  local start = text:sub(1, 3) == BYTE_ORDER_MARK and 4 or 1
  local position, model = after_space(text, start), nil
  if text:byte(position) ~= OBJECT then return false end
  position = after_space(text, position + 1)
  if text:byte(position) ~= OBJECT_END then
    repeat
      local key, value
      position, key, value = after_member(text, position)
      if not position then return false end
      if is_model_key(key) then model = value end
      local has_more = text:byte(position) == COMMA
      if has_more then position = after_space(text, position + 1) end
    until not has_more
  end
  return text:byte(position) == OBJECT_END and after_space(text, position + 1) > #text, model
end

-- Return whether a text that is no object seems to be another value of JSON.
local function is_other_value(text)
  local word = text:match("^%s*(%a+)%s*$")
  return text:find('^%s*["%[%d%-]') ~= nil or word == "null" or word == "true" or word == "false"
end

-- Return the model's name in a JSON body, or nil and the reason.
function json_scan.model_in_json(text)
  steps_left = STEPS_MAX
  local is_good, written = written_model(text)
  if steps_left <= 0 then return nil, "the body has more than " .. STEPS_MAX .. " values" end
  if not is_good then
    return nil, is_other_value(text) and json_scan.NOT_OBJECT or json_scan.NOT_JSON
  end
  if written == nil or written == "" then return nil, json_scan.NO_MODEL end
  if not written then return nil, "model must be a string" end
  if #written > WRITTEN_NAME_BYTES_MAX then return nil, "model is longer than any model's name" end
  local name = unescape(written)
  if name == nil or not json_scan.is_utf8(name) then return nil, json_scan.NOT_JSON end
  return name
end

-- Return the last field `model` of a multipart/form-data body (RFC 7578), or nil and the reason.
function json_scan.model_in_form(text, boundary)
  local delimiter, name = "--" .. boundary, nil
  local _, part = text:find(delimiter, 1, true)
  while part ~= nil do
    local head, content = text:sub(part + 1, part + FORM_HEAD_BYTES_MAX):match("^(.-\r\n)\r\n()")
    local next_start, next_end = text:find("\r\n" .. delimiter, part, true)
    local is_model = head ~= nil
      and (head:find('[; ]name="model"') or head:find("[; ]name=model[;\r]"))
    if is_model and next_start ~= nil then
      name = text:sub(part + content, next_start - 1)
    end
    part = next_end
  end
  local is_good = name ~= nil and name ~= "" and #name <= shared.NAME_BYTES_MAX
  if not is_good or not json_scan.is_utf8(name) then return nil, json_scan.NO_MODEL end
  return name
end

return json_scan
