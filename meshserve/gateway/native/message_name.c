#include "message_name.h"

#include <string.h>

/* Real messages have far fewer fields. Bounds the time that a hostile one takes from all requests. */
#define FIELDS_MAX 10000
#define VARINT_BYTES_MAX 10
#define NAME_TAG 10 /* field 1, wire type 2 */

/* Where a message is being read: a part, and the offset of its first byte in the message. */
typedef struct {
  const message_t *message;
  size_t part;
  size_t part_offset;
} reader_t;

/* Return the byte at an offset below the message's size. Offsets only grow. */
static uint8_t byte_at(reader_t *reader, size_t offset) {
  const span_t *parts = reader->message->parts;
  while (offset - reader->part_offset >= parts[reader->part].length) {
    reader->part_offset += parts[reader->part].length;
    reader->part++;
  }
  return (uint8_t)parts[reader->part].ptr[offset - reader->part_offset];
}

/* Read the varint at `*offset`, which is moved behind it. Returns false if it does not end in time,
   or does not fit: no length and no tag is as large. */
static bool read_varint(reader_t *reader, size_t *offset, uint64_t *value) {
  *value = 0;
  for (int i = 0; i < VARINT_BYTES_MAX && *offset < reader->message->size; i++) {
    uint8_t byte = byte_at(reader, (*offset)++);
    uint64_t bits = byte & 0x7F;
    if (i == VARINT_BYTES_MAX - 1 && bits > 1) return false;
    *value |= bits << (7 * i);
    if (byte < 0x80) return true;
  }
  return false;
}

size_t copy_bytes(const message_t *message, size_t offset, char *to, size_t count) {
  size_t copied = 0;
  for (size_t i = 0; i < message->count && copied < count; i++) {
    span_t part = message->parts[i];
    if (offset >= part.length) {
      offset -= part.length;
      continue;
    }
    size_t wanted = count - copied, have = part.length - offset;
    size_t some = have < wanted ? have : wanted;
    memcpy(to + copied, part.ptr + offset, some);
    copied += some;
    offset = 0;
  }
  return copied;
}

bool find_name(const message_t *message, name_t *name) {
  reader_t reader = {message, 0, 0};
  size_t offset = GRPC_HEAD_BYTES, size = message->size, name_offset = 0, name_bytes = 0;
  long depth = 0;
  for (int i = 0; i < FIELDS_MAX && offset < size; i++) {
    uint64_t tag, length = 0;
    if (!read_varint(&reader, &offset, &tag)) break;
    switch (tag & 7) {
      case 0:
        if (!read_varint(&reader, &offset, &length)) offset = size;
        break;
      case 1: length = 8; break;
      case 2:
        if (!read_varint(&reader, &offset, &length) || length > size - offset) goto found;
        /* Inside of a group (wire types 3 and 4) field 1 is another message's. */
        if (tag == NAME_TAG && depth == 0) {
          name_offset = offset;
          name_bytes = (size_t)length;
        }
        break;
      case 3: depth++; break;
      case 4: depth--; break;
      case 5: length = 4; break;
      default: goto found;
    }
    if ((tag & 7) == 0) continue;
    if (length > size - offset) break;
    offset += (size_t)length;
  }
found:
  if (!name_bytes) return false;
  name->count = copy_bytes(message, name_offset, name->bytes,
                           name_bytes < NAME_BYTES_MAX ? name_bytes : NAME_BYTES_MAX);
  return true;
}

static int sextet(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

size_t decode_base64(span_t text, char *to) {
  uint32_t bits = 0;
  int count = 0;
  size_t written = 0;
  for (size_t i = 0; i < text.length && written < NAME_BYTES_MAX; i++) {
    int value = sextet(text.ptr[i]);
    if (value < 0) continue;
    bits = (bits << 6 | (uint32_t)value) & 0xFFFF;
    count += 6;
    if (count >= 8) {
      count -= 8;
      to[written++] = (char)(bits >> count);
    }
  }
  return written;
}

size_t write_header_value(const name_t *name, char *to) {
  static const char hex[] = "0123456789ABCDEF";
  size_t written = 0;
  for (size_t i = 0; i < name->count; i++) {
    unsigned char c = (unsigned char)name->bytes[i];
    if (c < ' ' || c == 127) {
      to[written++] = '%';
      to[written++] = hex[c >> 4];
      to[written++] = hex[c & 15];
    } else {
      to[written++] = (char)c;
    }
  }
  return written;
}
