-- The script for requests to small models and to the controller: find the model's name, refuse what
-- is too large, and end gRPC calls with the status that the server answered.

local FRAME_BYTES = constants.FRAME_BYTES
-- A message is read in pieces of this size, because the name mostly stands near its beginning.
local WINDOW_BYTES = 512
-- Real messages have far fewer fields. Bounds the time that a hostile one takes from all requests
-- on this thread.
local FIELDS_MAX = 10000

local INVALID_ARGUMENT, UNKNOWN, UNIMPLEMENTED = "3", "2", "12"
local NOT_FOUND, UNAVAILABLE = "5", "14"
-- gRPC status by HTTP status, for answers that bring none of their own. Source: gRPC's
-- doc/http-grpc-status-mapping.md, but finer where our servers mean more by a status.
local GRPC_STATUS = {
  ["400"] = "3", ["404"] = "12", ["413"] = "8", ["429"] = "8", ["431"] = "8",
  ["500"] = "13", ["501"] = "12", ["502"] = "14", ["503"] = "14", ["504"] = "4",
}

-- KServe ModelMesh's metadata that name a model, the first present one counts.
local NAME_KEYS = {"mm-vmodel-id", "mm-vmodel-id-bin", "mm-model-id", "mm-model-id-bin"}
local V2_NAME = "^" .. constants.V2_MODELS .. "([^/?]+)"
local V1_NAME = "^" .. constants.V1_MODELS .. "([^/?]+)"

-- Verbs of TensorFlow Serving and KServe; the worker says which are not offered.
local VERBS = {predict = true, classify = true, regress = true, explain = true}

local BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local SEXTETS = {}
for value = 0, 63 do
  SEXTETS[BASE64:sub(value + 1, value + 1)] = value
end

local function from_base64(text)
  local bits, count, bytes = 0, 0, {}
  for letter in text:gmatch("[%w+/]") do
    bits, count = bits * 64 + SEXTETS[letter], count + 6
    if count >= 8 then
      count = count - 8
      local unit = 2 ^ count
      bytes[#bytes + 1] = string.char(math.floor(bits / unit))
      bits = bits % unit
    end
  end
  return table.concat(bytes)
end

local function name_in_metadata(headers)
  for _, key in ipairs(NAME_KEYS) do
    local value = headers:get(key)
    if value ~= nil and value ~= "" then
      if key:sub(-4) == "-bin" then
        return from_base64(value:match("^[^,]*"))
      end
      return value
    end
  end
end

-- Return a name of V1's path without the verb behind it, which may be quoted (`%3Apredict`).
local function without_verb(name)
  local bare, verb = name:match("^(.+):(%a+)$")
  return VERBS[verb] and bare or name
end

local function name_in_url(path)
  local name = path:match(V2_NAME)
  if name == nil then
    name = path:match(V1_NAME)
    return name and without_verb(shared.from_url(name))
  end
  return name and shared.from_url(name)
end

-- Return a function that decodes the varint at an offset of the body: it returns the value (nil if
-- the varint does not end within ten bytes) and the offset behind.
local function varint_reader(body, size)
  local window, window_offset = "", 0
  local function byte_at(offset)
    if offset - window_offset >= #window then
      window = body:getBytes(offset, math.min(WINDOW_BYTES, size - offset))
      window_offset = offset
    end
    return window:byte(offset - window_offset + 1)
  end
  return function(offset)
    local value, unit = 0, 1
    for position = offset, math.min(offset + 10, size) - 1 do
      local byte = byte_at(position)
      value, unit = value + (byte % 128) * unit, unit * 128
      if byte < 128 then
        return value, position + 1
      end
    end
    return nil, size
  end
end

-- Return field 1 of the protobuf message behind a gRPC frame's header, nil if it has none: the last
-- one if it stands several times, as parsers do. Source of the wire types:
-- https://protobuf.dev/programming-guides/encoding
local function name_in_message(body, size)
  local varint_at = varint_reader(body, size)
  local offset, depth, name_offset, name_bytes = FRAME_BYTES, 0, nil, 0
  for _ = 1, FIELDS_MAX do
    if offset >= size then break end
    local tag
    tag, offset = varint_at(offset)
    if tag == nil then break end
    local wire_type = tag % 8
    if wire_type == 0 then
      _, offset = varint_at(offset)
    elseif wire_type == 1 then
      offset = offset + 8
    elseif wire_type == 2 then
      local bytes
      bytes, offset = varint_at(offset)
      if bytes == nil or offset + bytes > size then break end
      -- Inside of a group (wire types 3 and 4) field 1 is another message's.
      if tag == 10 and depth == 0 then
        name_offset, name_bytes = offset, bytes
      end
      offset = offset + bytes
    elseif wire_type == 3 then
      depth = depth + 1
    elseif wire_type == 4 then
      depth = depth - 1
    elseif wire_type == 5 then
      offset = offset + 4
    else
      break
    end
  end
  if name_bytes > 0 then
    return body:getBytes(name_offset, math.min(name_bytes, shared.NAME_BYTES_MAX))
  end
end

local function refuse(handle, status, grpc_status, reason)
  handle:respond({[":status"] = status, ["grpc-status"] = grpc_status}, reason)
end

-- Return the buffered message and its size, or nil after a refusal. gRPC messages bring no
-- content-length: only reading them to the end tells their size.
local function read_message(handle, limit, may_be_compressed)
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
  -- The route table sends calls with gzip and deflate to the sidecar.
  if flag ~= 0 and not may_be_compressed then
    local reason = "the message is compressed in a way that is not served: "
    refuse(handle, "415", UNIMPLEMENTED, reason .. "use gzip, deflate or none")
    return nil
  end
  return body, size
end

-- Return whether the call goes on, and its model's name if it has one.
local function check_call(handle, source, limit)
  if source == "frame" then return read_message(handle, limit, true) ~= nil end
  local name = source == "message" and name_in_metadata(handle:headers())
  local body, size = read_message(handle, limit)
  if body == nil then return false end
  -- `headers()` is called again, because its earlier result is invalid after `body()`.
  -- The bridge removes the frame; with a content-length the server need not join chunks.
  handle:headers():replace("content-length", tostring(size))
  return true, source == "message" and (name or name_in_message(body, size))
end

-- Return whether the REST request goes on, and its model's name if it has one.
local function check_rest(handle, source, limit)
  local path, size = handle:headers():get(":path"), handle:headers():get("content-length")
  size = size and tonumber(size)
  local is_good = shared.is_small_enough(handle, size, limit, constants.TOO_LARGE)
  if is_good and handle:headers():get("content-encoding") ~= nil then
    handle:headers():replace(constants.INFLATED_BYTES_MAX, ("%d"):format(limit))
  end
  return is_good, source == "url" and name_in_url(path)
end

-- Answer a request of a pool without workers that may not wait for one, as the controller says.
local function turn_away(handle, is_call, headers, body)
  local status = headers[":status"]
  -- The controller's refusals are JSON, Envoy's own (no controller, no answer in time) are not.
  local is_ours = (headers["content-type"] or ""):sub(1, 16) == "application/json"
  local reason = is_ours and headers[constants.REASON_HEADER]
  local message = reason and shared.from_url(reason)
    or "the model's pool has no worker, and nobody can say when it will have one"
  if is_call then
    -- Callers see the gRPC status alone; Envoy has words of its own for HTTP's 404 and 503.
    return refuse(handle, "400", status == "404" and NOT_FOUND or UNAVAILABLE, message)
  end
  local answer = {
    [":status"] = is_ours and status or "503",
    ["content-type"] = "application/json",
    ["retry-after"] = headers["retry-after"],
  }
  handle:headers():replace(constants.TURN_HEADER, constants.ANSWERED)
  handle:respond(answer, is_ours and body or '{"error":"' .. message .. '"}')
end

-- Wait until the model's pool has a worker, if it has none and starts one when it is asked.
local function wait_for_worker(handle, is_call, name)
  local wait_ms = handle:metadata():get("wait_ms")
  if wait_ms == nil then return end
  local size = handle:headers():get("content-length")
  local headers, body = handle:httpCall(constants.CONTROLLER, {
    [":method"] = "POST",
    [":authority"] = constants.CONTROLLER,
    [":path"] = constants.HOLD .. "?api=small&model=" .. shared.to_url(name)
      .. "&bytes=" .. (size or 0),
  }, "", wait_ms)
  if headers[":status"] ~= "200" then turn_away(handle, is_call, headers, body) end
end

function envoy_on_request(handle)
  local context = handle:filterContext()
  local content_type = handle:headers():get("content-type")
  local is_call = content_type ~= nil and content_type:sub(1, 16) == "application/grpc"
  local check = is_call and check_call or check_rest
  -- Read now, because the context is invalid once the body was waited for.
  local has_held = context:get("has_held")
  local is_good, name = check(handle, context:get("name_source"), context:get("request_bytes_max"))
  if not is_good or not name then return end
  handle:headers():replace(constants.MODEL_HEADER, shared.for_header(name))
  handle:clearRouteCache()
  -- Only while a pool sleeps, because a look at the route costs each request.
  if has_held then wait_for_worker(handle, is_call, name) end
end

local function set_trailers(handle, status, message, details)
  local trailers = handle:trailers()
  trailers:replace("grpc-status", status)
  if message ~= nil then trailers:replace("grpc-message", message) end
  if details ~= nil then trailers:replace("grpc-status-details-bin", details) end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  -- Set by meshserve/protocol/error_responses.py: a server behind the bridge can't send trailers.
  local status = headers:get("x-mesh-grpc-status")
  if status ~= nil then
    local message = headers:get("x-mesh-grpc-message")
    set_trailers(handle, status, message, headers:get("x-mesh-grpc-details"))
    return
  end
  -- An answer of Envoy itself, to which the bridge has added a body and an end with status OK.
  local own_status = headers:get("grpc-status")
  if own_status ~= nil and headers:get("content-length") ~= nil then
    local message = headers:get("grpc-message")
    headers:remove("grpc-status")
    headers:remove("grpc-message")
    set_trailers(handle, own_status, message)
    return
  end
  -- The body of a worker's 503, which came as frames do: see meshserve/protocol/frames.py.
  local refusal = headers:get("x-mesh-refusal")
  if refusal ~= nil and handle:headers():get(constants.HTTP_STATUS_HEADER) == nil then
    handle:body(true):setBytes(refusal)
    return
  end
  local http_status = headers:get(constants.HTTP_STATUS_HEADER)
  if http_status ~= nil and http_status ~= "200" then
    local message = "the server behind the gateway answered with HTTP status " .. http_status
    set_trailers(handle, GRPC_STATUS[http_status] or UNKNOWN, message)
  end
end
