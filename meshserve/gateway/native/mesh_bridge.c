/* The bridge of a request to a worker: it goes as one frame, and its answer comes as one.

   Envoy keeps a connection for one request at a time, sends the request again after a reset or a 503,
   and closes the connection of one that was abandoned. A connection by which something wrong came is
   shut down, so that nothing of it reaches the next request; Envoy then tries another worker.

   Envoy frees the bridge at once when a request is tried again before its answer has ended. So the
   head of an answer that may be refused is sent as the whole answer, and nothing is touched after a
   callback that has freed the bridge. */
#include <stdlib.h>
#include <string.h>

#include "frames.h"

#define PARTS_ON_STACK 32
#define HEADERS_MAX 64
/* Up to this size a body is copied behind its head, so that one call sends both. */
#define JOINED_BYTES_MAX 16384
#define GRPC_HEAD_BYTES 5
/* Room for the headers that are written last. */
#define CALL_HEADERS_BYTES 128
#define UNAVAILABLE 503

typedef struct {
  char *bytes;
  size_t used;
  size_t room;
} text_t;

typedef struct {
  answer_t answer;
  text_t block; /* of the request, behind room for a frame's head */
  text_t body;  /* of a request that comes in parts */
  size_t body_left;
  bool is_answering; /* an answer is being passed on: who frees the bridge then only marks it */
  bool is_gone;
  uint8_t flags;
  bool is_head;
  bool is_sent;
  bool has_begun;
  bool is_broken;
} bridge_t;

static _Thread_local uint32_t last_serial;

static span_t span(const char *bytes, size_t length) { return (span_t){bytes, length}; }

static bool is_equal(const char *bytes, size_t length, const char *word) {
  return length == strlen(word) && memcmp(bytes, word, length) == 0;
}

static bool has_prefix(const char *bytes, size_t length, const char *word) {
  return length >= strlen(word) && memcmp(bytes, word, strlen(word)) == 0;
}

static bool reserve(text_t *text, size_t count) {
  if (count <= text->room - text->used) return true;
  size_t room = (text->used + count) + (text->used + count) / 2;
  char *bytes = realloc(text->bytes, room);
  if (bytes == NULL) return false;
  text->bytes = bytes;
  text->room = room;
  return true;
}

static bool append(text_t *text, const char *bytes, size_t count) {
  if (!reserve(text, count)) return false;
  if (count) memcpy(text->bytes + text->used, bytes, count);
  text->used += count;
  return true;
}

static size_t write_number(size_t number, char *to) {
  char digits[24];
  size_t count = 0, length;
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  for (length = count; count; count--) *to++ = digits[count - 1];
  return length;
}

/* Shut the connection down. The server closes it then, and Envoy resets the request. */
static void give_up(void *envoy, bridge_t *bridge) {
  if (bridge->is_broken) return;
  bridge->is_broken = true;
  BRIDGE(send_upstream_data)(envoy, span("", 0), true);
}

/* The request */

const void *ON_BRIDGE(config_new)(void *envoy, span_t name, span_t config) {
  static const char unused;
  (void)envoy, (void)name, (void)config;
  return &unused;
}

void ON_BRIDGE(config_destroy)(const void *config) { (void)config; }

const void *ON_BRIDGE(new)(const void *config, void *envoy) {
  (void)config, (void)envoy;
  bridge_t *bridge = calloc(1, sizeof *bridge);
  if (bridge != NULL) bridge->answer.serial = ++last_serial;
  return bridge;
}

static void free_bridge(bridge_t *bridge) {
  free_answer(&bridge->answer);
  free(bridge->block.bytes);
  free(bridge->body.bytes);
  free(bridge);
}

void ON_BRIDGE(destroy)(const void *module) {
  bridge_t *bridge = (bridge_t *)module;
  bridge->is_gone = true;
  if (!bridge->is_answering) free_bridge(bridge);
}
static void note_header(bridge_t *bridge, const header_t *header) {
  const char *name = header->name, *value = header->value;
  size_t length = header->name_length, value_length = header->value_length;
  bool counts = is_equal(name, length, "grpc-timeout") || has_prefix(name, length, "mm-") ||
                (is_equal(name, length, "x-envoy-attempt-count") &&
                 !is_equal(value, value_length, "1"));
  if (counts) bridge->flags |= FLAG_HEADERS_COUNT;
}

static bool append_line(text_t *block, const char *bytes, size_t count) {
  return append(block, bytes, count) && append(block, "\n", 1);
}

static const header_t *find(const header_t *headers, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (is_equal(headers[i].name, headers[i].name_length, name)) return &headers[i];
  return NULL;
}

/* What HTTP's bridge replaces in a call: models may read their requests' headers. */
static bool is_replaced(const header_t *header) {
  return is_equal(header->name, header->name_length, "x-mesh-call") ||
         is_equal(header->name, header->name_length, "accept") ||
         is_equal(header->name, header->name_length, "content-length");
}

/* Write method, path and headers. Returns false if something is missing or can't be sent. */
static bool write_block(bridge_t *bridge, const header_t *headers, size_t count) {
  text_t *block = &bridge->block;
  const header_t *method = find(headers, count, ":method"), *path = find(headers, count, ":path");
  if (method == NULL || path == NULL) return false;
  if (find(headers, count, "x-mesh-call") != NULL) bridge->flags |= FLAG_CALL;
  bridge->is_head = is_equal(method->value, method->value_length, "HEAD");
  size_t bytes = FRAME_HEAD_BYTES + CALL_HEADERS_BYTES;
  for (size_t i = 0; i < count; i++) bytes += headers[i].name_length + headers[i].value_length + 2;
  if (!reserve(block, bytes)) return false;
  block->used = FRAME_HEAD_BYTES;
  bool is_good = append_line(block, method->value, method->value_length) &&
                 append_line(block, path->value, path->value_length);
  for (size_t i = 0; i < count && is_good; i++) {
    header_t header = headers[i];
    if (bridge->flags & FLAG_CALL && is_replaced(&header)) continue;
    if (is_equal(header.name, header.name_length, ":authority")) {
      header.name = "host";
      header.name_length = 4;
    }
    if (header.name_length && header.name[0] == ':') continue;
    note_header(bridge, &header);
    is_good = append_line(block, header.name, header.name_length) &&
              append_line(block, header.value, header.value_length);
  }
  return is_good && block->used - FRAME_HEAD_BYTES <= BLOCK_BYTES_MAX - CALL_HEADERS_BYTES;
}

static bool append_call_headers(text_t *block, size_t body_bytes) {
  char length[24];
  size_t digits = write_number(body_bytes, length);
  return append_line(block, "accept", 6) && append_line(block, "application/grpc", 16) &&
         append_line(block, "content-length", 14) && append_line(block, length, digits);
}

/* Send the whole request, whose body is in `parts`. */
static void send_request(void *envoy, bridge_t *bridge, const span_t *parts, size_t count) {
  text_t *block = &bridge->block;
  size_t skipped = bridge->flags & FLAG_CALL ? GRPC_HEAD_BYTES : 0, size = 0;
  for (size_t i = 0; i < count; i++) size += parts[i].length;
  /* Bytes of an answer before its request is sent are of another request. */
  if (size < skipped || size - skipped > BODY_BYTES_MAX || bridge->answer.head_used) {
    give_up(envoy, bridge);
    return;
  }
  size -= skipped;
  if (skipped && !append_call_headers(block, size)) {
    give_up(envoy, bridge);
    return;
  }
  bridge->is_sent = true;
  write_request_head((uint8_t *)block->bytes, bridge->flags, bridge->answer.serial,
                     block->used - FRAME_HEAD_BYTES, size);
  bool is_joined = size <= JOINED_BYTES_MAX && reserve(block, size);
  if (!is_joined) BRIDGE(send_upstream_data)(envoy, span(block->bytes, block->used), false);
  for (size_t i = 0; i < count; i++) {
    size_t cut = skipped < parts[i].length ? skipped : parts[i].length;
    skipped -= cut;
    span_t rest = span(parts[i].ptr + cut, parts[i].length - cut);
    if (is_joined)
      append(block, rest.ptr, rest.length);
    else if (rest.length)
      BRIDGE(send_upstream_data)(envoy, rest, false);
  }
  if (is_joined) BRIDGE(send_upstream_data)(envoy, span(block->bytes, block->used), false);
}

static void send_kept(void *envoy, bridge_t *bridge) {
  span_t body = span(bridge->body.bytes, bridge->body.used);
  send_request(envoy, bridge, &body, 1);
  free(bridge->body.bytes);
  bridge->body = (text_t){0};
}

void ON_BRIDGE(encode_headers)(void *envoy, const void *module, bool end) {
  bridge_t *bridge = (bridge_t *)module;
  size_t count = BRIDGE(get_request_headers_size)(envoy);
  header_t few[HEADERS_MAX], *headers = count <= HEADERS_MAX ? few : calloc(count, sizeof *headers);
  bool is_good = headers != NULL && BRIDGE(get_request_headers)(envoy, headers) &&
                 write_block(bridge, headers, count);
  if (headers != few) free(headers);
  if (!is_good)
    give_up(envoy, bridge);
  else if (end)
    send_kept(envoy, bridge);
}

void ON_BRIDGE(encode_data)(void *envoy, const void *module, bool end) {
  bridge_t *bridge = (bridge_t *)module;
  if (bridge->is_broken || bridge->is_sent) return;
  size_t count = BRIDGE(get_request_buffer_chunks_size)(envoy);
  span_t few[PARTS_ON_STACK], *parts = count <= PARTS_ON_STACK ? few : calloc(count, sizeof *parts);
  if (parts == NULL) {
    give_up(envoy, bridge);
    return;
  }
  BRIDGE(get_request_buffer)(envoy, parts, &count);
  if (end && !bridge->body.used) {
    send_request(envoy, bridge, parts, count);
  } else {
    bool is_kept = true;
    for (size_t i = 0; i < count && is_kept; i++)
      is_kept = append(&bridge->body, parts[i].ptr, parts[i].length);
    if (!is_kept)
      give_up(envoy, bridge);
    else if (end)
      send_kept(envoy, bridge);
  }
  if (parts != few) free(parts);
}

void ON_BRIDGE(encode_trailers)(void *envoy, const void *module) {
  bridge_t *bridge = (bridge_t *)module;
  if (!bridge->is_broken && !bridge->is_sent) send_kept(envoy, bridge);
}

/* The answer */

static header_t header(const char *name, const char *value, size_t length) {
  return (header_t){name, strlen(name), value, length};
}

/* gRPC's status for an HTTP status, where our servers mean more by one than gRPC's own table. */
static const char *grpc_status(uint32_t status) {
  switch (status) {
    case 400: return "3";
    case 404: case 501: return "12";
    case 413: case 429: case 431: return "8";
    case 500: return "13";
    case 502: case 503: return "14";
    case 504: return "4";
    default: return "2";
  }
}

/* The answer to a call that the server refused by an HTTP status. Only 503 remains one, because Envoy
   tries it again; the filter makes it 200. */
static void refuse_call(void *envoy, uint32_t status) {
  char message[96] = "the server behind the gateway answered with HTTP status ";
  size_t length = strlen(message);
  length += write_number(status, message + length);
  const char *code = grpc_status(status);
  header_t headers[] = {header("content-type", "application/grpc", 16),
                        header("grpc-status", code, strlen(code)),
                        header("grpc-message", message, length)};
  BRIDGE(send_response_headers)(envoy, status == UNAVAILABLE ? status : 200, headers, 3, true);
}

static void begin_call(void *envoy, const bridge_t *bridge) {
  char length[24];
  size_t digits = write_number(bridge->answer.body_bytes + GRPC_HEAD_BYTES, length);
  header_t headers[] = {header("content-type", "application/grpc", 16),
                        header("content-length", length, digits)};
  BRIDGE(send_response_headers)(envoy, 200, headers, 2, false);
}

/* What ends with an error keeps its code, message and details in headers until here. */
static void end_call(void *envoy, const bridge_t *bridge) {
  static const char *const names[][2] = {{"x-mesh-grpc-status", "grpc-status"},
                                         {"x-mesh-grpc-message", "grpc-message"},
                                         {"x-mesh-grpc-details", "grpc-status-details-bin"}};
  header_t trailers[4], seen;
  size_t count = 0, position = 0;
  while (count < 4 && next_header(&bridge->answer, &position, &seen))
    for (int i = 0; i < 3; i++)
      if (count < 4 && is_equal(seen.name, seen.name_length, names[i][0]))
        trailers[count++] = header(names[i][1], seen.value, seen.value_length);
  if (find(trailers, count, "grpc-status") == NULL && count < 4)
    trailers[count++] = header("grpc-status", "0", 1);
  BRIDGE(send_response_trailers)(envoy, trailers, count);
}

static void begin_plain(void *envoy, const bridge_t *bridge, bool end) {
  char length[24];
  header_t headers[HEADERS_MAX + 1];
  size_t count = 0, position = 0;
  while (count < HEADERS_MAX && next_header(&bridge->answer, &position, &headers[count])) count++;
  headers[count++] = header("content-length", length, write_number(bridge->answer.body_bytes, length));
  BRIDGE(send_response_headers)(envoy, bridge->answer.status, headers, count, end);
}

/* Send the head of a call's message, and with it what of the message is in `parts`. */
static void send_first(void *envoy, const bridge_t *bridge, const span_t *parts, size_t count,
                       size_t size) {
  char joined[GRPC_HEAD_BYTES + JOINED_BYTES_MAX];
  size_t body_bytes = bridge->answer.body_bytes, used = GRPC_HEAD_BYTES;
  joined[0] = 0;
  for (int i = 0; i < 4; i++) joined[4 - i] = (char)(body_bytes >> (8 * i));
  if (size <= JOINED_BYTES_MAX)
    for (size_t i = 0; i < count; i++) {
      if (parts[i].length) memcpy(joined + used, parts[i].ptr, parts[i].length);
      used += parts[i].length;
    }
  BRIDGE(send_response_data)(envoy, span(joined, used), false);
}

/* Pass on `size` bytes of the body, which are all of `parts`. */
static void pass_body(void *envoy, bridge_t *bridge, const span_t *parts, size_t count, size_t size) {
  bool is_call = bridge->flags & FLAG_CALL, is_last = size == bridge->body_left;
  uint32_t status = bridge->answer.status;
  /* Without a body: Envoy may try a 503 again, and HEAD has none. */
  bool is_bare = is_call ? status != 200 : status == UNAVAILABLE || bridge->is_head;
  bridge->body_left -= size;
  if (is_bare) {
    if (is_last && is_call) refuse_call(envoy, status);
    if (is_last && !is_call) begin_plain(envoy, bridge, true);
    return;
  }
  bool is_empty = !is_call && bridge->answer.body_bytes == 0, is_joined = false;
  if (!bridge->has_begun) {
    bridge->has_begun = true;
    if (is_call)
      begin_call(envoy, bridge);
    else
      begin_plain(envoy, bridge, is_empty);
    if (bridge->is_gone || is_empty) return;
    is_joined = is_call && size <= JOINED_BYTES_MAX;
    if (is_call) send_first(envoy, bridge, parts, count, size);
  }
  for (size_t i = 0; i < count && !is_joined && !bridge->is_gone; i++) {
    size -= parts[i].length;
    if (parts[i].length)
      BRIDGE(send_response_data)(envoy, parts[i], !is_call && is_last && size == 0);
  }
  if (!bridge->is_gone && is_call && is_last) end_call(envoy, bridge);
}

/* Take the bytes that came. Bytes behind the answer are of nothing that was asked. */
static void take(void *envoy, bridge_t *bridge, span_t *parts, size_t count) {
  size_t first = 0, size = 0;
  bool was_in_body = bridge->answer.stage == IN_BODY;
  for (; first < count && bridge->answer.stage < IN_BODY; first++) {
    size_t taken = read_answer(&bridge->answer, parts[first].ptr, parts[first].length);
    parts[first].ptr += taken;
    parts[first].length -= taken;
    if (parts[first].length) break;
  }
  if (bridge->answer.stage == IN_BODY && !was_in_body) bridge->body_left = bridge->answer.body_bytes;
  if (bridge->answer.stage == BROKEN || !bridge->is_sent) give_up(envoy, bridge);
  if (bridge->answer.stage != IN_BODY || bridge->is_broken) return;
  size_t last = first;
  for (; last < count && size < bridge->body_left; last++) {
    size_t left = bridge->body_left - size;
    if (parts[last].length > left) break;
    size += parts[last].length;
  }
  for (size_t i = last; i < count; i++)
    if (parts[i].length) {
      give_up(envoy, bridge);
      return;
    }
  if (size || !was_in_body) pass_body(envoy, bridge, parts + first, last - first, size);
}

void ON_BRIDGE(on_upstream_data)(void *envoy, const void *module, bool end) {
  (void)end;
  bridge_t *bridge = (bridge_t *)module;
  if (bridge->is_broken) return;
  size_t count = BRIDGE(get_response_buffer_chunks_size)(envoy);
  span_t few[PARTS_ON_STACK], *parts = count <= PARTS_ON_STACK ? few : calloc(count, sizeof *parts);
  if (parts == NULL) {
    give_up(envoy, bridge);
    return;
  }
  BRIDGE(get_response_buffer)(envoy, parts, &count);
  bridge->is_answering = true;
  take(envoy, bridge, parts, count);
  bridge->is_answering = false;
  if (bridge->is_gone) free_bridge(bridge);
  if (parts != few) free(parts);
}
