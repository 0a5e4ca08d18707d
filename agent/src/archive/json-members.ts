/** What was found in the object that a {@link MemberScan} looks into. */
export interface Members {
  /** The members of interest whose value is a string. A string of over 64 KiB counts as empty: no name is that long. */
  values: ReadonlyMap<string, string>;
  /** The first key of interest that is there more than once: one reader would take the first value, another the last. */
  repeated: string | undefined;
}

/** Strings longer than this are not held, in bytes as written. */
const MAX_TEXT_BYTES = 64 * 1024;
/** Go, which the runtimes are written in, refuses to write or to read deeper JSON. */
const MAX_DEPTH = 10_000;

/** What may come next. Numbers, not strings: they are compared for every byte. */
const VALUE = 0;
const FIRST_ITEM = 1;
const FIRST_KEY = 2;
const KEY = 3;
const COLON = 4;
const COMMA = 5;
const END = 6;
const STRING = 7;
const ESCAPE = 8;
const HEX = 9;
const WORD = 10;
const BROKEN = 11;
/** Within a number, by what was read of it last. */
const MINUS = 12;
const ZERO = 13;
const INTEGER = 14;
const POINT = 15;
const FRACTION = 16;
const EXPONENT_MARK = 17;
const EXPONENT_SIGN = 18;
const EXPONENT = 19;

/**
 * Reads a few string members of one object in a JSON text that comes in pieces, such as a file of megabytes that must not
 * be held in memory. The object is the text's own or, if `member` is given, that member of it. The text is held to be JSON
 * exactly if JSON.parse takes it, up to 10,000 levels deep.
 */
export class MemberScan {
  readonly #member: string | undefined;
  readonly #keys: ReadonlySet<string>;
  readonly #values = new Map<string, string>();
  readonly #seen = new Set<string>();
  #repeated: string | undefined;

  #expects = VALUE;
  /** The objects (true) and arrays that are open. */
  readonly #open: boolean[] = [];
  /** How deep the object of interest lies; 0 while the scan is outside of it. */
  #wantedDepth = 0;
  /** The key, if it is of interest, of the value that comes next. */
  #key: string | undefined;

  #isKey = false;
  /** The string being read, a character a byte as written; undefined if it is of no interest. */
  #text: string | undefined;
  #hexDigits = 0;
  #word = "";

  constructor({ member, keys }: { member?: string; keys: ReadonlySet<string> }) {
    this.#member = member;
    this.#keys = keys;
  }

  /** Takes in the next piece. It is not kept. */
  take(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 1) {
      if (this.#expects === STRING) {
        at = this.#takeText(bytes, at);
        if (at === bytes.length) return;
      }
      this.#takeByte(bytes[at] as number);
      if (this.#expects === BROKEN) return;
    }
  }

  /** What was found, if all pieces together are JSON. */
  end(): Members | undefined {
    const isOver = this.#expects === END || (this.#open.length === 0 && isWholeNumber(this.#expects));
    return isOver ? { values: this.#values, repeated: this.#repeated } : undefined;
  }

  /** Goes on to the next byte that ends the string or that needs a closer look; returns where that is. */
  #takeText(bytes: Uint8Array, start: number): number {
    let at = start;
    while (at < bytes.length && IS_PLAIN[bytes[at] as number] === 1) at += 1;
    this.#keepText(bytes, start, at);
    return at;
  }

  #keepText(bytes: Uint8Array, start: number, end: number): void {
    if (this.#text === undefined || this.#text.length > MAX_TEXT_BYTES || start === end) return;
    this.#text += Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");
  }

  #takeByte(byte: number): void {
    switch (this.#expects) {
      case STRING:
        if (byte === QUOTE) this.#endString();
        else if (byte === BACKSLASH) this.#keepCharacter(byte, ESCAPE);
        else this.#expects = BROKEN;
        return;
      case ESCAPE:
        this.#hexDigits = 0;
        if (byte === LOWER_U) this.#keepCharacter(byte, HEX);
        else if (ESCAPED.includes(byte)) this.#keepCharacter(byte, STRING);
        else this.#expects = BROKEN;
        return;
      case HEX:
        this.#hexDigits += 1;
        if (!isHexDigit(byte)) this.#expects = BROKEN;
        else this.#keepCharacter(byte, this.#hexDigits === 4 ? STRING : HEX);
        return;
      case WORD:
        this.#takeWord(byte);
        return;
    }
    if (this.#expects >= MINUS) {
      const next = nextInNumber(this.#expects, byte);
      if (next !== undefined || !isWholeNumber(this.#expects)) {
        this.#expects = next ?? BROKEN;
        return;
      }
      this.#endValue();
    }
    if (!isBlank(byte)) this.#takeToken(byte);
  }

  #keepCharacter(byte: number, expects: number): void {
    if (this.#text !== undefined && this.#text.length <= MAX_TEXT_BYTES) this.#text += String.fromCharCode(byte);
    this.#expects = expects;
  }

  #takeWord(byte: number): void {
    this.#word += String.fromCharCode(byte);
    if (WORDS.includes(this.#word)) this.#endValue();
    else if (!WORDS.some((word) => word.startsWith(this.#word))) this.#expects = BROKEN;
  }

  /** Takes a byte between strings, words and numbers that is no blank. */
  #takeToken(byte: number): void {
    switch (this.#expects) {
      case FIRST_ITEM:
      case VALUE:
        if (byte === CLOSING_BRACKET && this.#expects === FIRST_ITEM) this.#close(false);
        else this.#beginValue(byte);
        return;
      case FIRST_KEY:
      case KEY:
        if (byte === QUOTE) this.#beginString(true);
        else if (byte === CLOSING_BRACE && this.#expects === FIRST_KEY) this.#close(true);
        else this.#expects = BROKEN;
        return;
      case COLON:
        this.#expects = byte === COLON_SIGN ? VALUE : BROKEN;
        return;
      case COMMA:
        if (byte === COMMA_SIGN) this.#expects = this.#open.at(-1) ? KEY : VALUE;
        else if (byte === CLOSING_BRACE) this.#close(true);
        else if (byte === CLOSING_BRACKET) this.#close(false);
        else this.#expects = BROKEN;
        return;
      default:
        this.#expects = BROKEN;
    }
  }

  #beginValue(byte: number): void {
    if (byte === QUOTE) {
      this.#beginString(false);
      return;
    }
    const isOfMember = this.#key !== undefined && this.#wantedDepth === 0;
    this.#key = undefined;
    if (byte === OPENING_BRACE || byte === OPENING_BRACKET) {
      const isObject = byte === OPENING_BRACE;
      const isWanted = isObject && (this.#member === undefined ? this.#open.length === 0 : isOfMember);
      this.#open.push(isObject);
      if (isWanted) this.#wantedDepth = this.#open.length;
      if (this.#open.length > MAX_DEPTH) this.#expects = BROKEN;
      else this.#expects = isObject ? FIRST_KEY : FIRST_ITEM;
      return;
    }
    if (byte === MINUS_SIGN || isDigit(byte)) {
      this.#expects = byte === MINUS_SIGN ? MINUS : integerOf(byte);
      return;
    }
    this.#word = "";
    this.#expects = WORD;
    this.#takeWord(byte);
  }

  #beginString(isKey: boolean): void {
    const depth = this.#open.length;
    const isOfInterest = isKey
      ? depth === this.#wantedDepth || (depth === 1 && this.#member !== undefined)
      : this.#key !== undefined && depth === this.#wantedDepth;
    this.#isKey = isKey;
    this.#text = isOfInterest ? "" : undefined;
    this.#expects = STRING;
  }

  #endString(): void {
    if (this.#isKey) {
      this.#key = this.#text === undefined ? undefined : this.#keyOfInterest(decode(this.#text));
      this.#expects = COLON;
      return;
    }
    if (this.#key !== undefined && this.#text !== undefined) this.#values.set(this.#key, decode(this.#text));
    this.#key = undefined;
    this.#endValue();
  }

  #keyOfInterest(key: string): string | undefined {
    const isOfInterest = this.#open.length === this.#wantedDepth ? this.#keys.has(key) : key === this.#member;
    if (!isOfInterest) return undefined;
    if (this.#seen.has(key)) this.#repeated ??= key;
    this.#seen.add(key);
    return key;
  }

  #close(isObject: boolean): void {
    if (this.#open.at(-1) !== isObject) {
      this.#expects = BROKEN;
      return;
    }
    if (this.#open.length === this.#wantedDepth) this.#wantedDepth = 0;
    this.#open.pop();
    this.#endValue();
  }

  #endValue(): void {
    this.#expects = this.#open.length === 0 ? END : COMMA;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const LOWER_U = 0x75;
const PLUS_SIGN = 0x2b;
const MINUS_SIGN = 0x2d;
const DOT = 0x2e;
const COLON_SIGN = 0x3a;
const COMMA_SIGN = 0x2c;
const OPENING_BRACKET = 0x5b;
const CLOSING_BRACKET = 0x5d;
const OPENING_BRACE = 0x7b;
const CLOSING_BRACE = 0x7d;

/** What may stand behind a backslash, but for the `u`. */
const ESCAPED = [...Buffer.from('"\\/bfnrt')];
const WORDS = ["true", "false", "null"];

/** Which bytes a string may hold that mean themselves: 1 for all but control characters, the quote and the backslash. */
const IS_PLAIN = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH ? 1 : 0,
);

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isHexDigit(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66);
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function integerOf(digit: number): number {
  return digit === 0x30 ? ZERO : INTEGER;
}

/** Whether a number may end after what was read of it last. */
function isWholeNumber(state: number): boolean {
  return state === ZERO || state === INTEGER || state === FRACTION || state === EXPONENT;
}

/** What was read of a number last once this byte is; undefined if the number does not go on with it. */
function nextInNumber(state: number, byte: number): number | undefined {
  const isMark = byte === 0x65 || byte === 0x45;
  switch (state) {
    case MINUS:
      return isDigit(byte) ? integerOf(byte) : undefined;
    case ZERO:
    case INTEGER:
      if (byte === DOT) return POINT;
      if (isMark) return EXPONENT_MARK;
      return state === INTEGER && isDigit(byte) ? INTEGER : undefined;
    case POINT:
      return isDigit(byte) ? FRACTION : undefined;
    case FRACTION:
      if (isMark) return EXPONENT_MARK;
      return isDigit(byte) ? FRACTION : undefined;
    case EXPONENT_MARK:
      if (byte === PLUS_SIGN || byte === MINUS_SIGN) return EXPONENT_SIGN;
      return isDigit(byte) ? EXPONENT : undefined;
    default:
      return isDigit(byte) ? EXPONENT : undefined;
  }
}

/** The text of a string, whose escapes were checked. */
function decode(written: string): string {
  if (written.length > MAX_TEXT_BYTES) return "";
  const text = Buffer.from(written, "latin1").toString();
  return text.includes("\\") ? (JSON.parse(`"${text}"`) as string) : text;
}
