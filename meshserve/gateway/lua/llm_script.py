"""The script for requests to LLMs inside Envoy: which model is asked, and may the request go on to it now.

It answers by itself in the form of OpenAI's errors. What it knows of a model stands in the metadata of the model's route (`llm_routes`),
which is the request's route once `x-mesh-model` is set: the filter's own context is read once a request, and is the path's.
"""

from __future__ import annotations

from meshserve.gateway.lua import json_scan, shared

OWN_SCRIPT = r"""
local JSON_ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\"}
-- What belongs to one connection, or is said anew.
local OF_THE_HOP = {
  connection = true, date = true, server = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["content-length"] = true,
}
local COLLECTED_BYTES_MIN = 2 ^ 20

local function in_json(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return JSON_ESCAPES[c] or string.format("\\u%04x", c:byte()) end) .. '"'
end

-- Says to the local replies that this one has its form already.
local function answer(handle, headers, body)
  handle:headers():replace("x-mesh-turn", "answered")
  handle:respond(headers, body)
end

local function refuse(handle, status, message, param, code)
  local kind = status:sub(1, 1) == "5" and "server_error" or "invalid_request_error"
  local text = '{"error": {"message": %s, "type": "%s", "param": %s, "code": "%s"}}'
  local headers = {[":status"] = status, ["retry-after"] = status == "503" and "1" or nil}
  answer(handle, headers, text:format(in_json(message), kind, param, code))
end

local function model_in_query(path)
  local query = path:match("%?(.*)$")
  local name = query and ("&" .. query):match(".*&model=([^&]*)")
  name = name and from_url((name:gsub("+", " ")))
  if name == nil or name == "" or not is_utf8(name) then return nil, NO_MODEL .. ", such as ?model=NAME where there is no body" end
  return name
end

local function model_in_body(body, size, kind)
  local text = body:getBytes(0, size)
  local form = kind ~= nil and kind:lower():match("^multipart/form%-data;.*boundary=()")
  local boundary = form and kind:match('^"?([^";]+)', form)
  if boundary then return model_in_form(text, boundary) end
  return model_in_json(text)
end

-- Which model is asked, or nil and what is wrong; and the size of the body.
local function asked_model(handle)
  local path, kind = handle:headers():get(":path"), handle:headers():get("content-type")
  local body = handle:body()
  local size = body ~= nil and body:length() or 0
  if size == 0 then
    local name, fault = model_in_query(path)
    return name, fault, 0
  end
  local name, fault = model_in_body(body, size, kind)
  -- A request may be held for minutes: its body need not be kept by this script too.
  if size >= COLLECTED_BYTES_MIN then collectgarbage() end
  return name, fault, size
end

local function to_url(text)
  return (text:gsub("[^%w%-._~]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- Returns once the controller says that the request may go on; else the client has its answer.
local function wait_for_turn(handle, llm, size, wait_ms)
  local headers, body = handle:httpCall("controller", {
    [":method"] = "POST",
    [":authority"] = "controller",
    [":path"] = "/mesh/internal/held?model=" .. to_url(llm) .. "&bytes=" .. size,
  }, "", wait_ms)
  local status = headers[":status"]
  if status == "200" then return end
  -- Envoy's own words, where nobody answered, are plain text.
  if (headers["content-type"] or ""):sub(1, 16) ~= "application/json" then
    local message = "The model `" .. llm .. "` is not ready, and nobody can say when it will be."
    return refuse(handle, "503", message, '"model"', "service_unavailable")
  end
  local passed = {}
  for name, value in pairs(headers) do
    if not OF_THE_HOP[name] then passed[name] = value end
  end
  answer(handle, passed, body)
end

function envoy_on_request(handle)
  local limit, size = handle:filterContext():get("request_bytes_max"), handle:headers():get("content-length")
  if not is_small_enough(handle, size and tonumber(size), limit, "too-large-for-llm") then return end
  local name, fault, bytes = asked_model(handle)
  if name == nil then return refuse(handle, "400", fault, fault == NOT_JSON and "null" or '"model"', "invalid_request") end
  handle:headers():replace("x-mesh-model", for_header(name))
  handle:headers():replace("x-mesh-turn", "llm")
  handle:clearRouteCache()
  local route = handle:metadata()
  local llm = route:get("llm")
  if llm == nil then
    return refuse(handle, "404", "The model `" .. name .. "` does not exist.", '"model"', "model_not_found")
  end
  local wait_ms = route:get("wait_ms")
  if wait_ms ~= nil then wait_for_turn(handle, llm, bytes, wait_ms) end
end
"""

SCRIPT = shared.SCRIPT + json_scan.SCRIPT + OWN_SCRIPT
