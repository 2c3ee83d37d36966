/**
 * Bytes and text. Inside the kernel a name or a file's contents is a string with one character a byte, or a Uint8Array;
 * people's text is turned into bytes (UTF-8) where it comes in and back where it goes out.
 */

/** The bytes of a string of bytes. */
export function bytes_of(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Bytes as a string of bytes. */
export function bytes_to_string(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return text;
}

/** People's text as a string of bytes. */
export function utf8_encode(text: string): string {
  return bytes_to_string(new TextEncoder().encode(text));
}

/** A string of bytes as people's text; what is no UTF-8 becomes U+FFFD. */
export function utf8_decode(text: string): string {
  return new TextDecoder().decode(bytes_of(text));
}
