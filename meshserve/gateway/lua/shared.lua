-- Functions of both scripts, for small models and for LLMs.

local shared = {}

shared.NAME_BYTES_MAX = 2048

-- Bytes over the limit that are still read to the end, see `is_small_enough`.
local DISCARDED_BYTES_MAX = 2 ^ 30

-- Return text with its %XX escapes decoded.
function shared.from_url(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Return text in which all but the plainest characters are escaped as %XX.
function shared.to_url(text)
  local function escape(character) return ("%%%02X"):format(character:byte()) end
  return (text:gsub("[^%w%-._~]", escape))
end

-- Return the model's name as a header's value. A name can hold control characters, a header can't.
function shared.for_header(name)
  local text = name:sub(1, shared.NAME_BYTES_MAX)
  return (text:gsub("%c", function(character) return ("%%%02X"):format(character:byte()) end))
end

-- Return whether the request is within `limit` bytes. If not, route it to where it is refused, or
-- refuse it. `size` is the content-length, nil if there is none; `turn` is the reason to route by.
--
-- Many clients send the whole request before they read an answer, and would see a closed
-- connection instead of a refusal. A body that is not absurdly large is therefore read and
-- discarded by the sidecar.
function shared.is_small_enough(handle, size, limit, turn)
  if size ~= nil and size > limit and size <= limit + DISCARDED_BYTES_MAX then
    handle:headers():replace(constants.TURN_HEADER, turn)
    handle:clearRouteCache()
    return false
  end
  if size == nil then
    local body = handle:body()
    size = body ~= nil and body:length() or 0
  end
  if size > limit then
    handle:respond({[":status"] = "413"}, "")
    return false
  end
  return true
end

return shared
