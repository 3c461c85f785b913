-- The script for requests to LLMs: find the model's name, send the request to the model's route,
-- and wait for the controller while no replica can answer. Refusals have the form of OpenAI's
-- errors.
--
-- What the script knows about a model is metadata of the model's route, which is the request's
-- route once the model's header is set. The filter's context can't hold it, because Envoy keeps
-- for each stream the context of the first route.

local ANTHROPIC_TYPES = {["404"] = "not_found_error", ["503"] = "overloaded_error"}
-- Methods with which only paths of stored objects are served, which have more parts than these.
local BODILESS = {GET = true, HEAD = true, OPTIONS = true}
local POSTED = {
  ["/v1/completions"] = true, ["/v1/chat/completions"] = true, ["/v1/embeddings"] = true,
  ["/v1/responses"] = true, ["/v1/messages"] = true, ["/v1/messages/count_tokens"] = true,
  ["/v1/audio/speech"] = true, ["/v1/audio/transcriptions"] = true,
  ["/v1/audio/translations"] = true, ["/v1/moderations"] = true, ["/v1/score"] = true,
  ["/v1/rerank"] = true, ["/v1/images/generations"] = true,
}
local UNKNOWN_URL = "Unknown request URL: %s %s. There are: /v1/models, and with a model's name "
  .. "/v1/completions, /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages and what "
  .. "else its engine serves"

local GENERATE = "^" .. constants.V2_MODELS .. "(.+)/generate$"
local GENERATE_STREAM = "^" .. constants.V2_MODELS .. "(.+)/generate_stream$"

local JSON_ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\"}
-- Headers of the controller's answer that belong to its connection, or that Envoy writes anew.
local HOP_HEADERS = {
  connection = true, date = true, server = true, ["keep-alive"] = true,
  ["transfer-encoding"] = true, ["content-length"] = true,
}
-- Copies of bodies from this size on are collected at once.
local COLLECTED_BYTES_MIN = 2 ^ 20

local function to_json(text)
  local function escape(character)
    return JSON_ESCAPES[character] or ("\\u%04x"):format(character:byte())
  end
  return '"' .. text:gsub('[%c"\\]', escape) .. '"'
end

-- Answer the client. The header keeps Envoy's local_reply_config from wrapping the body again.
local function answer(handle, headers, body)
  handle:headers():replace(constants.TURN_HEADER, constants.ANSWERED)
  handle:respond(headers, body)
end

-- Return whether the request is of Anthropic's API, whose errors have another form. The same as
-- meshserve/protocol/llm_errors.py says.
local function is_anthropic(handle)
  local path = handle:headers():get(":path"):gsub("^" .. constants.OPENAI_PREFIX, "")
  local messages = constants.ANTHROPIC_MESSAGES
  return path:sub(1, #messages) == messages and path:find("^[/?]", #messages + 1) ~= nil
    or path == messages
end

-- Answer with an error. `param` is JSON.
local function refuse(handle, status, message, param, code)
  local headers = {
    [":status"] = status,
    ["retry-after"] = status == "503" and "1" or nil,
    allow = status == "405" and "POST" or nil,
  }
  if is_anthropic(handle) then
    local kind = ANTHROPIC_TYPES[status] or "invalid_request_error"
    local body = '{"type": "error", "error": {"type": "%s", "message": %s}}'
    answer(handle, headers, body:format(kind, to_json(message)))
    return
  end
  local kind = status:sub(1, 1) == "5" and "server_error" or "invalid_request_error"
  local body = '{"error": {"message": %s, "type": "%s", "param": %s, "code": "%s"}}'
  answer(handle, headers, body:format(to_json(message), kind, param, code))
end

local function model_in_query(path)
  local query = path:match("%?(.*)$")
  local name = query and ("&" .. query):match(".*&model=([^&]*)")
  name = name and shared.from_url((name:gsub("+", " ")))
  if name == nil or name == "" or not json_scan.is_utf8(name) then
    return nil, json_scan.NO_MODEL .. ", such as ?model=NAME where there is no body"
  end
  return name
end

-- Return the name in a path of the Open Inference Protocol's `generate`, nil in other paths.
local function model_in_path(path)
  local bare = path:match("^[^?]*")
  local name = bare:match(GENERATE) or bare:match(GENERATE_STREAM)
  return name and shared.from_url((name:gsub("/versions/[^/]+$", "")))
end

local function model_in_body(body, size, content_type)
  local text = body:getBytes(0, size)
  local kind = content_type ~= nil and content_type:lower()
  local boundary_start = kind and kind:match("^multipart/form%-data;.*boundary=()")
  local boundary = boundary_start and content_type:match('^"?([^";]+)', boundary_start)
  if boundary then return json_scan.model_in_form(text, boundary) end
  return json_scan.model_in_json(text)
end

-- Return the model's name, or nil and the reason; and the size of the body.
local function find_model(handle)
  local headers = handle:headers()
  local path, content_type = headers:get(":path"), headers:get("content-type")
  local body = handle:body()
  local size = body ~= nil and body:length() or 0
  local name = model_in_path(path)
  if name ~= nil then return name, nil, size end
  local reason
  if size == 0 then
    name, reason = model_in_query(path)
    return name, reason, 0
  end
  name, reason = model_in_body(body, size, content_type)
  -- The request may be held for minutes, and Envoy keeps its body already: free the script's copy.
  if size >= COLLECTED_BYTES_MIN then collectgarbage() end
  return name, reason, size
end

-- Return whether a path below /v1/ is none that a model's engine is known to serve, such as
-- /v1/files: nobody can name a model there.
local function is_unknown(path)
  if path:sub(1, 4) ~= "/v1/" then return false end
  for posted in pairs(POSTED) do
    if path == posted or path:sub(1, #posted + 1) == posted .. "/" then return false end
  end
  return true
end

-- Return once the controller lets the request go on; otherwise answer the client.
local function wait_for_turn(handle, llm, size, wait_ms)
  local headers, body = handle:httpCall(constants.CONTROLLER, {
    [":method"] = "POST",
    [":authority"] = constants.CONTROLLER,
    [":path"] = constants.HOLD .. "?model=" .. shared.to_url(llm) .. "&bytes=" .. size
      .. (is_anthropic(handle) and "&api=anthropic" or ""),
  }, "", wait_ms)
  local status = headers[":status"]
  if status == "200" then return end
  -- The controller's refusals are JSON, Envoy's own (no controller, no answer in time) are not.
  if (headers["content-type"] or ""):sub(1, 16) ~= "application/json" then
    local message = "The model `" .. llm .. "` is not ready, and nobody can say when it will be."
    return refuse(handle, "503", message, '"model"', "service_unavailable")
  end
  local forwarded = {}
  for name, value in pairs(headers) do
    if not HOP_HEADERS[name] then forwarded[name] = value end
  end
  answer(handle, forwarded, body)
end

-- Return the path without its query, without the second prefix of OpenAI's API and a last slash.
local function plain_path(headers)
  local path = headers:get(":path"):match("^[^?]*")
  return (path:gsub("^" .. constants.OPENAI_PREFIX .. "/", "/"):gsub("(.)/$", "%1"))
end

-- Return whether the request can be for an LLM at all; otherwise answer the client.
local function check_form(handle)
  local headers = handle:headers()
  local method, path = headers:get(":method"), plain_path(headers)
  if method == "OPTIONS" or BODILESS[method] and POSTED[path] then
    local message = path .. " is not served with " .. method .. ": use POST"
    refuse(handle, "405", message, "null", "method_not_allowed")
    return false
  end
  local encoding = headers:get("content-encoding")
  if encoding ~= nil and encoding ~= "" and encoding:lower() ~= "identity" then
    local message = "content-encoding `" .. encoding .. "` is not served on this path: "
      .. "send the body as it is"
    refuse(handle, "415", message, "null", "unsupported_encoding")
    return false
  end
  return true
end

function envoy_on_request(handle)
  if not check_form(handle) then return end
  local limit = handle:filterContext():get("request_bytes_max")
  local size = handle:headers():get("content-length")
  size = size and tonumber(size)
  if not shared.is_small_enough(handle, size, limit, constants.TOO_LARGE_FOR_LLM) then return end
  local name, reason, body_bytes = find_model(handle)
  if name == nil then
    local path = plain_path(handle:headers())
    if is_unknown(path) then
      local message = UNKNOWN_URL:format(handle:headers():get(":method"), path)
      return refuse(handle, "404", message, "null", "unknown_url")
    end
    local is_form = reason == json_scan.NOT_JSON or reason == json_scan.NOT_OBJECT
    local param = is_form and "null" or '"model"'
    return refuse(handle, "400", reason, param, "invalid_request")
  end
  handle:headers():replace(constants.MODEL_HEADER, shared.for_header(name))
  handle:headers():replace(constants.TURN_HEADER, constants.LLM)
  handle:clearRouteCache()
  local route = handle:metadata()
  local llm = route:get("llm")
  if llm == nil then
    local message = "The model `" .. name .. "` does not exist."
    return refuse(handle, "404", message, '"model"', "model_not_found")
  end
  local wait_ms = route:get("wait_ms")
  if wait_ms ~= nil then wait_for_turn(handle, llm, body_bytes, wait_ms) end
end
