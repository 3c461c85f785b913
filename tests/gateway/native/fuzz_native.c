/* Drives the module in C as Envoy does, with right and wrong bytes, under sanitizers.

     fuzz_native SEED COUNT [FRAME_FILE…]

   Each round is a request by the bridge, whose frame is read back and compared, with an answer that
   is right, cut, changed or of another request, in pieces; and a message for the filter, in pieces,
   whose model's name a plain reader finds too. Envoy frees the bridge in the middle of a callback
   now and then. Files are messages to begin with. Aborts on the first difference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "message_name.h"

#define CHECK(x) \
  do \
    if (!(x)) { \
      fprintf(stderr, "round %llu: %s, line %d\n", round_number, #x, __LINE__); \
      abort(); \
    } \
  while (0)

typedef struct {
  char *bytes;
  size_t used;
} bag_t;

static unsigned long long state, round_number;

static uint32_t chance(uint32_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32) % below;
}

static void put(bag_t *bag, const void *bytes, size_t count) {
  bag->bytes = realloc(bag->bytes, bag->used + count + 1);
  if (count) memcpy(bag->bytes + bag->used, bytes, count);
  bag->used += count;
}

static void empty(bag_t *bag) {
  free(bag->bytes);
  *bag = (bag_t){0};
}

/* Cut bytes into parts with memory of their own, so that reading beyond one is noticed. */
static size_t cut(const bag_t *bag, span_t *parts, size_t most) {
  size_t count = 0, at = 0;
  while (at < bag->used) {
    size_t left = bag->used - at, size = count == most - 1 ? left : 1 + chance((uint32_t)left);
    if (chance(3) == 0 && size > 9 && count < most - 1) size = 1 + chance(9);
    char *part = malloc(size);
    memcpy(part, bag->bytes + at, size);
    parts[count++] = (span_t){part, size};
    at += size;
  }
  return count;
}

static void free_parts(span_t *parts, size_t count) {
  for (size_t i = 0; i < count; i++) free((void *)parts[i].ptr);
}

/* Envoy's side */

#define PARTS_MAX 40

static header_t request_headers[80], *request_map = request_headers;
static size_t header_count, part_count, chunk_count[2];
static span_t part_list[PARTS_MAX], chunk_list[2][PARTS_MAX];
static bag_t upstream, body, block;
static const void *bridge;
static int ends, heads, trailers_seen, refusals, frees;
static uint32_t answered_status;
static bool is_shut, may_free;
static char model_set[3 * NAME_BYTES_MAX];
static size_t model_bytes;
static bool has_model;
static const void *limit;

void ON_BRIDGE(destroy)(const void *);
const void *ON_BRIDGE(new)(const void *, void *);
void ON_BRIDGE(encode_headers)(void *, const void *, bool);
void ON_BRIDGE(encode_data)(void *, const void *, bool);
void ON_BRIDGE(encode_trailers)(void *, const void *);
void ON_BRIDGE(on_upstream_data)(void *, const void *, bool);
const void *ON_FILTER(per_route_config_new)(span_t, span_t);
void ON_FILTER(per_route_config_destroy)(const void *);
int ON_FILTER(request_headers)(void *, const void *, bool);
int ON_FILTER(request_body)(void *, const void *, bool);
int ON_FILTER(request_trailers)(void *, const void *);
int ON_FILTER(response_headers)(void *, const void *, bool);

static void maybe_free(void) {
  if (!may_free || bridge == NULL || chance(4)) return;
  ON_BRIDGE(destroy)(bridge);
  bridge = NULL;
  frees++;
}

size_t BRIDGE(get_request_headers_size)(void *e) { (void)e; return header_count; }
bool BRIDGE(get_request_headers)(void *e, header_t *all) {
  (void)e;
  memcpy(all, request_map, header_count * sizeof *all);
  return true;
}
size_t BRIDGE(get_request_buffer_chunks_size)(void *e) { (void)e; return part_count; }
void BRIDGE(get_request_buffer)(void *e, span_t *all, size_t *count) {
  (void)e;
  memcpy(all, part_list, part_count * sizeof *all);
  *count = part_count;
}
size_t BRIDGE(get_response_buffer_chunks_size)(void *e) { return BRIDGE(get_request_buffer_chunks_size)(e); }
void BRIDGE(get_response_buffer)(void *e, span_t *all, size_t *count) { BRIDGE(get_request_buffer)(e, all, count); }
void BRIDGE(send_upstream_data)(void *e, span_t bytes, bool end) {
  (void)e;
  CHECK(!is_shut);
  put(&upstream, bytes.ptr, bytes.length);
  is_shut = end;
}
void BRIDGE(send_response_headers)(void *e, uint32_t status, header_t *headers, size_t count, bool end) {
  (void)e;
  CHECK(bridge != NULL && heads == 0 && ends == 0);
  heads++;
  ends += end;
  answered_status = status;
  for (size_t i = 0; i < count; i++) {
    put(&block, headers[i].name, headers[i].name_length);
    put(&block, headers[i].value, headers[i].value_length);
  }
  maybe_free();
}
void BRIDGE(send_response_data)(void *e, span_t bytes, bool end) {
  (void)e;
  CHECK(bridge != NULL && heads == 1 && ends == 0);
  put(&body, bytes.ptr, bytes.length);
  ends += end;
  maybe_free();
}
void BRIDGE(send_response_trailers)(void *e, header_t *trailers, size_t count) {
  (void)e;
  CHECK(bridge != NULL && heads == 1 && ends == 0 && count >= 1);
  for (size_t i = 0; i < count; i++) put(&block, trailers[i].value, trailers[i].value_length);
  ends++;
  trailers_seen++;
  maybe_free();
}
bool FILTER(get_header)(void *e, int map, span_t name, span_t *value, size_t index, size_t *count) {
  (void)e;
  *value = (span_t){NULL, 0};
  *count = 0;
  if (map != REQUEST_HEADERS) {
    *value = (span_t){"503", 3};
    *count = 1;
    return true;
  }
  for (size_t i = 0; i < header_count; i++)
    if (request_map[i].name_length == name.length && !memcmp(request_map[i].name, name.ptr, name.length))
      if ((*count)++ == index) *value = (span_t){request_map[i].value, request_map[i].value_length};
  return index < *count;
}
bool FILTER(set_header)(void *e, int map, span_t name, span_t value) {
  (void)e;
  if (map == REQUEST_HEADERS && name.length == 12) {
    CHECK(value.length <= sizeof model_set);
    memcpy(model_set, value.ptr, value.length);
    model_bytes = value.length;
    has_model = true;
  }
  return true;
}
size_t FILTER(get_body_chunks_size)(void *e, int which) { (void)e; return chunk_count[which]; }
bool FILTER(get_body_chunks)(void *e, int which, span_t *all) {
  (void)e;
  memcpy(all, chunk_list[which], chunk_count[which] * sizeof *all);
  return true;
}
size_t FILTER(get_body_size)(void *e, int which) {
  (void)e;
  size_t size = 0;
  for (size_t i = 0; i < chunk_count[which]; i++) size += chunk_list[which][i].length;
  return size;
}
const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *e) {
  (void)e;
  return limit;
}
void FILTER(clear_route_cache)(void *e) { (void)e; }
void FILTER(send_response)(void *e, uint32_t status, header_t *headers, size_t count, span_t text, span_t details) {
  (void)e, (void)headers, (void)count, (void)text, (void)details;
  CHECK(status >= 400 && status < 600);
  refusals++;
}

/* The bridge */

static void add_header(const char *name, const char *value) {
  request_headers[header_count++] = (header_t){name, strlen(name), value, strlen(value)};
}

static void random_body(bag_t *bag, uint32_t most) {
  uint32_t size = chance(4) ? chance(200) : chance(most);
  bag->bytes = realloc(bag->bytes, bag->used + size + 1);
  for (uint32_t i = 0; i < size; i++) bag->bytes[bag->used + i] = (char)chance(256);
  bag->used += size;
}

static void send_request(bag_t *sent, bool is_call) {
  bool in_parts = chance(3) == 0, has_trailers = chance(4) == 0;
  void *envoy = &state;
  ON_BRIDGE(encode_headers)(envoy, bridge, !sent->used);
  if (!sent->used) return;
  span_t parts[PARTS_MAX];
  size_t count = cut(sent, parts, PARTS_MAX), done = 0;
  while (done < count) {
    part_count = in_parts ? 1 + chance((uint32_t)(count - done)) : count - done;
    memcpy(part_list, parts + done, part_count * sizeof *parts);
    done += part_count;
    ON_BRIDGE(encode_data)(envoy, bridge, done == count && !has_trailers);
  }
  if (has_trailers) ON_BRIDGE(encode_trailers)(envoy, bridge);
  free_parts(parts, count);
  (void)is_call;
}

static uint32_t u32(const char *at) {
  uint32_t number;
  memcpy(&number, at, 4);
  return number;
}

static void check_request(const bag_t *sent, bool is_call) {
  size_t cut_off = is_call ? 5 : 0;
  CHECK(upstream.used >= FRAME_HEAD_BYTES && (uint8_t)upstream.bytes[0] == REQUEST_MAGIC);
  size_t block_bytes = u32(upstream.bytes + 8), body_bytes = u32(upstream.bytes + 12);
  CHECK(upstream.used == FRAME_HEAD_BYTES + block_bytes + body_bytes);
  CHECK(body_bytes == sent->used - cut_off);
  CHECK((upstream.bytes[2] & FLAG_CALL) == is_call);
  CHECK(body_bytes == 0 || !memcmp(upstream.bytes + FRAME_HEAD_BYTES + block_bytes,
                                   sent->bytes + cut_off, body_bytes));
  size_t lines = 0;
  for (size_t i = 0; i < block_bytes; i++) lines += upstream.bytes[FRAME_HEAD_BYTES + i] == '\n';
  CHECK(lines % 2 == 0 && lines >= 2);
}

static uint32_t make_answer(bag_t *answer, bag_t *told, uint32_t serial) {
  static const char *const blocks[] = {
      "", "x-mesh-grpc-status\n5\nx-mesh-grpc-message\nno\n", "content-type\ntext/plain\nx-a\n\n",
      "x-mesh-grpc-details\nCAUS\nx-mesh-grpc-details\nCAUS\nx-mesh-grpc-details\nCAUS\nx-mesh-grpc-details\nA\n"};
  static const uint16_t statuses[] = {200, 200, 200, 404, 500, 503, 204};
  const char *headers = blocks[chance(4)];
  uint16_t status = statuses[chance(7)];
  random_body(told, chance(20) ? 3000 : 90000);
  uint8_t head[FRAME_HEAD_BYTES] = {ANSWER_MAGIC, FRAME_VERSION, (uint8_t)status, (uint8_t)(status >> 8)};
  uint32_t numbers[] = {serial, (uint32_t)strlen(headers), (uint32_t)told->used};
  memcpy(head + 4, numbers, sizeof numbers);
  put(answer, head, sizeof head);
  put(answer, headers, strlen(headers));
  put(answer, told->bytes, told->used);
  return status;
}

/* Returns whether the answer is still right. */
static bool spoil(bag_t *answer) {
  switch (chance(8)) {
    case 0: /* some byte */
      answer->bytes[chance((uint32_t)(answer->used < 60 ? answer->used : 60))] ^= (char)(1 + chance(255));
      return false;
    case 1: answer->used = chance((uint32_t)answer->used); return false;
    case 2: put(answer, "more", 1 + chance(4)); return false;
    case 3: answer->bytes[4 + chance(4)] ^= 1; return false; /* of another request */
    default: return true;
  }
}

static void bridge_round(void) {
  static const char *const methods[] = {"POST", "GET", "HEAD"};
  bool is_call = chance(2), is_early = chance(40) == 0;
  const char *method = is_call ? "POST" : methods[chance(3)];
  bag_t sent = {0}, answer = {0}, told = {0};
  header_count = 0;
  if (chance(50)) add_header(":method", method);
  add_header(":path", "/inference.GRPCInferenceService/ModelInfer?x=1");
  add_header(":authority", "mesh");
  for (uint32_t i = chance(chance(9) ? 6 : 70); i; i--) add_header("x-a", "some value");
  if (chance(2)) add_header("grpc-timeout", "10S");
  if (chance(3) == 0) add_header("x-envoy-attempt-count", chance(2) ? "1" : "2");
  if (is_call) add_header("x-mesh-call", "1");
  if (is_call) put(&sent, "\0\0\0\0\0", 5);
  random_body(&sent, 60000);
  ends = heads = trailers_seen = 0;
  is_shut = false;
  may_free = false;
  bridge = ON_BRIDGE(new)(&state, &state);
  if (is_early) {
    put(&answer, "\xF8\1\310", 3);
    part_count = cut(&answer, part_list, PARTS_MAX);
    ON_BRIDGE(on_upstream_data)(&state, bridge, false);
    free_parts(part_list, part_count);
    empty(&answer);
  }
  send_request(&sent, is_call);
  bool has_method = request_map[0].name[1] == 'm';
  if (is_early || !has_method) {
    CHECK(is_shut && upstream.used == 0);
  } else {
    check_request(&sent, is_call);
    uint32_t status = make_answer(&answer, &told, u32(upstream.bytes + 4));
    bool is_right = spoil(&answer);
    may_free = chance(3) == 0;
    frees = 0;
    span_t parts[PARTS_MAX];
    size_t count = cut(&answer, parts, PARTS_MAX), done = 0;
    while (done < count && bridge != NULL) {
      part_count = 1 + chance((uint32_t)(count - done));
      memcpy(part_list, parts + done, part_count * sizeof *parts);
      done += part_count;
      ON_BRIDGE(on_upstream_data)(&state, bridge, chance(2));
    }
    free_parts(parts, count);
    if (is_right && !frees) {
      bool is_bare = is_call ? status != 200 : status == 503 || !strcmp(method, "HEAD");
      size_t head = is_call ? 5 : 0;
      CHECK(ends == 1 && heads == 1 && !is_shut);
      CHECK(answered_status == (is_call && status != 503 ? 200 : status));
      CHECK(body.used == (is_bare ? 0 : told.used + head));
      CHECK(is_bare || !told.used || !memcmp(body.bytes + head, told.bytes, told.used));
      CHECK(trailers_seen == (is_call && !is_bare));
    }
  }
  if (bridge != NULL) ON_BRIDGE(destroy)(bridge);
  bridge = NULL;
  empty(&upstream), empty(&body), empty(&block), empty(&sent), empty(&answer), empty(&told);
}

/* The filter */

static void put_varint(bag_t *bag, uint64_t number) {
  do {
    char byte = (char)((number & 127) | (number > 127 ? 128 : 0));
    put(bag, &byte, 1);
  } while (number >>= 7);
}

/* A plain reader of what `put_field` writes. Returns the last name at depth 0. */
typedef struct {
  char bytes[300];
  size_t used;
} plain_t;

static void put_field(bag_t *message, plain_t *name, int *depth) {
  char bytes[300];
  uint32_t size = chance(8) ? chance(30) : chance(300);
  for (uint32_t i = 0; i < size; i++) bytes[i] = (char)chance(256);
  switch (chance(8)) {
    case 0: put_varint(message, 8 * (1 + chance(30))); put_varint(message, state); break;
    case 1: put_varint(message, 8 * (1 + chance(30)) + 1); put(message, "12345678", 8); break;
    case 2: put_varint(message, 8 * (1 + chance(30)) + 5); put(message, "1234", 4); break;
    case 3: put_varint(message, 8 * 2 + 3); (*depth)++; break;
    case 4: put_varint(message, 8 * 2 + 4); (*depth)--; break;
    case 5: put_varint(message, 8 * (2 + chance(30)) + 2); put_varint(message, size); put(message, bytes, size); break;
    default:
      put_varint(message, 10);
      put_varint(message, size);
      put(message, bytes, size);
      if (*depth == 0) {
        memcpy(name->bytes, bytes, size);
        name->used = size;
      }
  }
}

static void filter_round(const bag_t *files, int file_count) {
  bag_t message = {0};
  plain_t plain = {.used = 0};
  int depth = 0;
  bool is_known = chance(2);
  put(&message, "\0\0\0\0\0", 5);
  if (!is_known && file_count && chance(2)) {
    const bag_t *file = &files[chance((uint32_t)file_count)];
    put(&message, file->bytes, file->used);
  } else {
    for (uint32_t i = chance(12); i; i--) put_field(&message, &plain, &depth);
  }
  if (!is_known)
    for (uint32_t i = chance(4); i && message.used > 5; i--)
      message.bytes[5 + chance((uint32_t)message.used - 5)] = (char)chance(256);
  if (!is_known && chance(4) == 0) message.used = chance((uint32_t)message.used + 1);
  size_t length = message.used - 5;
  if (message.used >= 5 && chance(20))
    for (int i = 0; i < 4; i++) message.bytes[4 - i] = (char)(length >> (8 * i));
  else
    is_known = false;
  is_known = is_known && length <= 9000;
  header_count = 0;
  if (!is_known && chance(2)) add_header("mm-vmodel-id", "");
  if (!is_known && chance(2)) add_header(chance(2) ? "mm-model-id-bin" : "mm-model-id", "aXJpcw==,x");
  if (!is_known && chance(4) == 0) add_header("mm-model-id-bin", "@@@");
  has_model = false;
  refusals = 0;
  size_t count = cut(&message, chunk_list[BUFFERED_REQUEST], PARTS_MAX / 2);
  size_t buffered = count ? chance((uint32_t)count + 1) : 0;
  chunk_count[BUFFERED_REQUEST] = buffered;
  chunk_count[RECEIVED_REQUEST] = count - buffered;
  memcpy(chunk_list[RECEIVED_REQUEST], chunk_list[BUFFERED_REQUEST] + buffered,
         (count - buffered) * sizeof(span_t));
  bool is_good = ON_FILTER(request_body)(&state, &state, true) == BODY_CONTINUE;
  CHECK(is_good == !refusals);
  if (is_known) {
    name_t wanted = {.count = plain.used};
    char value[3 * NAME_BYTES_MAX];
    memcpy(wanted.bytes, plain.bytes, plain.used);
    size_t bytes = write_header_value(&wanted, value);
    CHECK(is_good && has_model == (plain.used > 0));
    CHECK(!has_model || (bytes == model_bytes && !memcmp(value, model_set, bytes)));
  }
  chunk_count[BUFFERED_REQUEST] = count;
  ON_FILTER(request_trailers)(&state, &state);
  ON_FILTER(response_headers)(&state, &state, true);
  free_parts(chunk_list[BUFFERED_REQUEST], count);
  empty(&message);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  state = strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
  unsigned long long rounds = strtoull(argv[2], NULL, 10);
  static bag_t files[64];
  int file_count = 0;
  for (int i = 3; i < argc && file_count < 64; i++) {
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL) return 2;
    static char bytes[100000];
    put(&files[file_count++], bytes, fread(bytes, 1, sizeof bytes, file));
    fclose(file);
  }
  limit = ON_FILTER(per_route_config_new)((span_t){"", 0}, (span_t){"9000", 4});
  for (round_number = 0; round_number < rounds; round_number++) {
    bridge_round();
    filter_round(files, file_count);
  }
  for (int i = 0; i < file_count; i++) empty(&files[i]);
  ON_FILTER(per_route_config_destroy)(limit);
  printf("%llu rounds\n", round_number);
  return 0;
}
