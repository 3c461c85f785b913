#include "frames.h"

#include <stdlib.h>
#include <string.h>

static void write_u32(uint8_t *to, size_t number) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(number >> (8 * i));
}

static uint32_t read_u32(const uint8_t *from) {
  return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

void write_request_head(uint8_t *head, uint8_t flags, uint32_t serial, size_t block_bytes,
                        size_t body_bytes) {
  head[0] = REQUEST_MAGIC;
  head[1] = FRAME_VERSION;
  head[2] = flags;
  head[3] = 0;
  write_u32(head + 4, serial);
  write_u32(head + 8, block_bytes);
  write_u32(head + 12, body_bytes);
}

/* A serial number that is not the request's own is of an earlier answer: it must reach nobody. */
static enum stage read_head(answer_t *answer) {
  const uint8_t *head = answer->head;
  answer->status = head[2] | (uint32_t)head[3] << 8;
  answer->block_bytes = read_u32(head + 8);
  answer->body_bytes = read_u32(head + 12);
  bool is_good = head[0] == ANSWER_MAGIC && head[1] == FRAME_VERSION &&
                 answer->status >= 200 && answer->status <= 599 &&
                 read_u32(head + 4) == answer->serial && answer->block_bytes <= BLOCK_BYTES_MAX &&
                 answer->body_bytes <= BODY_BYTES_MAX;
  if (!is_good) return BROKEN;
  return answer->block_bytes ? IN_BLOCK : IN_BODY;
}

static bool has_room(answer_t *answer, size_t count) {
  size_t needed = answer->block_used + count;
  if (needed <= answer->block_room) return true;
  char *block = realloc(answer->block, needed);
  if (block == NULL) return false;
  answer->block = block;
  answer->block_room = needed;
  return true;
}

/* Names are of a token's characters in small letters, values hold no control character: Envoy takes
   both as they are. */
static bool is_sound(const char *block, size_t count) {
  bool is_name = true;
  size_t lines = 0, line_bytes = 0;
  for (size_t i = 0; i < count; i++) {
    unsigned char c = (unsigned char)block[i];
    if (c == '\n') {
      if (is_name && !line_bytes) return false;
      is_name = !is_name;
      lines++;
      line_bytes = 0;
      continue;
    }
    line_bytes++;
    if (is_name ? !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
                : ((c < ' ' && c != '\t') || c == 127))
      return false;
  }
  return !line_bytes && lines % 2 == 0;
}

size_t read_answer(answer_t *answer, const char *bytes, size_t count) {
  size_t taken = 0;
  while (taken < count && answer->stage < IN_BODY) {
    size_t left = count - taken;
    if (answer->stage == IN_HEAD) {
      size_t wanted = FRAME_HEAD_BYTES - answer->head_used, part = left < wanted ? left : wanted;
      memcpy(answer->head + answer->head_used, bytes + taken, part);
      answer->head_used += part;
      taken += part;
      if (part == wanted) answer->stage = read_head(answer);
    } else {
      size_t wanted = answer->block_bytes - answer->block_used, part = left < wanted ? left : wanted;
      if (!has_room(answer, part)) {
        answer->stage = BROKEN;
        break;
      }
      memcpy(answer->block + answer->block_used, bytes + taken, part);
      answer->block_used += part;
      taken += part;
      if (part == wanted)
        answer->stage = is_sound(answer->block, answer->block_bytes) ? IN_BODY : BROKEN;
    }
  }
  return taken;
}

bool next_header(const answer_t *answer, size_t *position, header_t *header) {
  if (*position >= answer->block_used) return false;
  const char *name = answer->block + *position, *end = answer->block + answer->block_used;
  const char *name_end = memchr(name, '\n', (size_t)(end - name));
  if (name_end == NULL) return false;
  const char *value = name_end + 1, *value_end = memchr(value, '\n', (size_t)(end - value));
  if (value_end == NULL) return false;
  *header = (header_t){name, (size_t)(name_end - name), value, (size_t)(value_end - value)};
  *position = (size_t)(value_end + 1 - answer->block);
  return true;
}

void free_answer(answer_t *answer) { free(answer->block); }
