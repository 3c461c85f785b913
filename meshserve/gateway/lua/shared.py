"""What the scripts inside Envoy have in common. Each of them is compiled by itself, so that this text stands before its own."""

from __future__ import annotations

MODEL_HEADER = "x-mesh-model"
TURN_HEADER = "x-mesh-turn"
"""What became of a request that does not simply go by its path: one of the words below."""

TOO_LARGE = "too-large"
TOO_LARGE_FOR_LLM = "too-large-for-llm"
LLM = "llm"
ANSWERED = "answered"
OPENAI = "openai"

SCRIPT = r"""
local NAME_BYTES_MAX = 2048
local THROWN_AWAY_BYTES_MAX = 2 ^ 30

local function from_url(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- A name can hold any byte, a header can't.
local function for_header(name)
  return (name:sub(1, NAME_BYTES_MAX):gsub("%c", function(c) return string.format("%%%02X", c:byte()) end))
end

-- Many clients send all of a request before they read an answer, and would see a closed connection instead of it: a body that is not
-- absurd is sent where it is read and thrown away.
local function is_small_enough(handle, size, limit, turn)
  if size ~= nil and size > limit and size <= limit + THROWN_AWAY_BYTES_MAX then
    handle:headers():replace("x-mesh-turn", turn)
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
"""
