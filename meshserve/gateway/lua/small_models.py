"""The scripts that run inside Envoy, and the one for small models: whose request is it, is it too big, what became of a gRPC call."""

from __future__ import annotations

import enum

from meshserve.gateway.lua import llm_script, shared

Json = dict[str, object]

FILTER = "envoy.filters.http.lua"
LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
LUA_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
FRAME_BYTES = 5
LLM_SCRIPT = "llm"


class NameSource(enum.Enum):
    """Where the script looks for the model's name: field 1 of a gRPC message (and metadata), the URL, an LLM's request, or nowhere."""

    MESSAGE = "message"
    URL = "url"
    LLM = "llm"
    NONE = "none"


def http_filter() -> Json:
    """The filter with its scripts; it sleeps where a route has no task for it."""
    scripts = {
        "default_source_code": {"inline_string": SCRIPT},
        "source_codes": {LLM_SCRIPT: {"inline_string": llm_script.SCRIPT}},
    }
    return {"name": FILTER, "disabled": True, "typed_config": {"@type": LUA, **scripts}}


def task(key: NameSource, request_bytes_max: int) -> Json:
    """What the filter does on a route, as its setting there."""
    script = {"name": LLM_SCRIPT} if key is NameSource.LLM else {}
    return {
        "@type": LUA_ROUTE,
        **script,
        "filter_context": {"key": key.value, "request_bytes_max": request_bytes_max},
    }


def no_task() -> Json:
    """The filter's setting on a route that a script has chosen: its answers are left as they are."""
    return {"@type": LUA_ROUTE, "name": LLM_SCRIPT}


def body_bytes_max(request_bytes_max: int) -> int:
    """How much of a body must fit into Envoy's buffer: a message of that size in its gRPC frame."""
    return request_bytes_max + FRAME_BYTES


OWN_SCRIPT = r"""
local WINDOW_BYTES = 512
-- Nobody's honest message has more; it bounds the time that a hostile one takes from everybody on this thread.
local FIELDS_MAX = 10000
local FRAME_BYTES = 5
local INVALID_ARGUMENT = "3"
local UNIMPLEMENTED = "12"
local NAMES = {"mm-vmodel-id", "mm-vmodel-id-bin", "mm-model-id", "mm-model-id-bin"}
-- What the caller of a gRPC method is told of an HTTP status that a server behind us answered.
local CODES = {
  ["400"] = "3", ["404"] = "12", ["413"] = "8", ["429"] = "8", ["431"] = "8",
  ["500"] = "13", ["501"] = "12", ["502"] = "14", ["503"] = "14", ["504"] = "4",
}

local SEXTETS = {}
for i = 0, 63 do
  SEXTETS[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):sub(i + 1, i + 1)] = i
end

local function from_base64(text)
  local bits, count, out = 0, 0, {}
  for letter in text:gmatch("[%w+/]") do
    bits, count = bits * 64 + SEXTETS[letter], count + 6
    if count >= 8 then
      count = count - 8
      local unit = 2 ^ count
      out[#out + 1] = string.char(math.floor(bits / unit))
      bits = bits % unit
    end
  end
  return table.concat(out)
end

local function name_in_metadata(headers)
  for _, key in ipairs(NAMES) do
    local value = headers:get(key)
    if value ~= nil and value ~= "" then
      if key:sub(-4) == "-bin" then
        return from_base64(value:match("^[^,]*"))
      end
      return value
    end
  end
end

local function name_in_url(path)
  local name = path:match("^/v2/models/([^/?]+)")
  if name == nil then
    name = path:match("^/v1/models/([^/?]+)")
    name = name and name:gsub(":predict$", "")
  end
  return name and from_url(name)
end

-- Field 1 of a protobuf message that follows a gRPC frame's header: the last one, as parsers do it. Reads no more than it must.
local function name_in_message(body, size)
  local window, window_at = "", 0
  local function byte(at)
    if at - window_at >= #window then
      window, window_at = body:getBytes(at, math.min(WINDOW_BYTES, size - at)), at
    end
    return window:byte(at - window_at + 1)
  end
  local function varint(at)
    local value, unit = 0, 1
    for i = at, math.min(at + 10, size) - 1 do
      local b = byte(i)
      value, unit = value + (b % 128) * unit, unit * 128
      if b < 128 then
        return value, i + 1
      end
    end
    return nil, size
  end
  local at, depth, name_at, name_bytes = FRAME_BYTES, 0, nil, 0
  for _ = 1, FIELDS_MAX do
    if at >= size then break end
    local tag
    tag, at = varint(at)
    if tag == nil then break end
    local kind = tag % 8
    if kind == 0 then
      _, at = varint(at)
    elseif kind == 1 then
      at = at + 8
    elseif kind == 2 then
      local bytes
      bytes, at = varint(at)
      if bytes == nil or at + bytes > size then break end
      if tag == 10 and depth == 0 then
        name_at, name_bytes = at, bytes
      end
      at = at + bytes
    elseif kind == 3 then
      depth = depth + 1
    elseif kind == 4 then
      depth = depth - 1
    elseif kind == 5 then
      at = at + 4
    else
      break
    end
  end
  if name_bytes > 0 then
    return body:getBytes(name_at, math.min(name_bytes, NAME_BYTES_MAX))
  end
end

local function refuse(handle, status, grpc_status, why)
  handle:respond({[":status"] = status, ["grpc-status"] = grpc_status}, why)
end

-- The whole message in a buffer, or nil and an answer sent. gRPC messages carry no content-length: only reading one tells its size.
local function message(handle, limit)
  local body = handle:body()
  local size = body ~= nil and body:length() or 0
  if size < FRAME_BYTES then
    refuse(handle, "400", INVALID_ARGUMENT, "a unary gRPC call has one message, this one has none")
    return nil
  end
  if size - FRAME_BYTES > limit then
    refuse(handle, "413", nil, "")
    return nil
  end
  local flag, b1, b2, b3, b4 = body:getBytes(0, FRAME_BYTES):byte(1, FRAME_BYTES)
  if ((b1 * 256 + b2) * 256 + b3) * 256 + b4 ~= size - FRAME_BYTES then
    refuse(handle, "400", INVALID_ARGUMENT, "the gRPC frame's length is not the message's")
    return nil
  end
  -- Calls with gzip and deflate go to the node's own server and don't come here.
  if flag ~= 0 then
    refuse(handle, "415", UNIMPLEMENTED, "the message is compressed in a way that is not served: use gzip, deflate or none")
    return nil
  end
  return body, size
end

-- What `headers()` gave is dead after `body()`, so it is asked for anew.
local function of_call(handle, key, limit)
  local name = key == "message" and name_in_metadata(handle:headers())
  local body, size = message(handle, limit)
  if body == nil then return false end
  -- The bridge takes the frame off again. With a length the server behind need not put chunks together.
  handle:headers():replace("content-length", tostring(size))
  return true, key == "message" and (name or name_in_message(body, size))
end

local function of_rest(handle, key, limit)
  local path, size = handle:headers():get(":path"), handle:headers():get("content-length")
  return is_small_enough(handle, size and tonumber(size), limit, "too-large"), key == "url" and name_in_url(path)
end

function envoy_on_request(handle)
  local context = handle:filterContext()
  local kind = handle:headers():get("content-type")
  local is_call = kind ~= nil and kind:sub(1, 16) == "application/grpc"
  local is_good, name = (is_call and of_call or of_rest)(handle, context:get("key"), context:get("request_bytes_max"))
  if is_good and name then
    handle:headers():replace("x-mesh-model", for_header(name))
    handle:clearRouteCache()
  end
end

local function end_with(handle, status, reason, details)
  local trailers = handle:trailers()
  trailers:replace("grpc-status", status)
  if reason ~= nil then trailers:replace("grpc-message", reason) end
  if details ~= nil then trailers:replace("grpc-status-details-bin", details) end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("x-mesh-grpc-status")
  if status ~= nil then
    end_with(handle, status, headers:get("x-mesh-grpc-message"), headers:get("x-mesh-grpc-details"))
    return
  end
  -- Envoy's own answer, if the bridge gave it a body and an end that says OK.
  local own_status = headers:get("grpc-status")
  if own_status ~= nil and headers:get("content-length") ~= nil then
    local reason = headers:get("grpc-message")
    headers:remove("grpc-status")
    headers:remove("grpc-message")
    end_with(handle, own_status, reason)
    return
  end
  local http_status = headers:get("x-mesh-http-status")
  if http_status ~= nil and http_status ~= "200" then
    end_with(handle, CODES[http_status] or "2", "the server behind the gateway answered with HTTP status " .. http_status)
  end
end
"""

SCRIPT = shared.SCRIPT + OWN_SCRIPT
