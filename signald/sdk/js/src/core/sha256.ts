// SHA-256 (FIPS 180-4) over bytes as they come. No I/O.
//
// `crypto.subtle` takes all bytes at once, and is there in a secure context only; a page on a LAN has none.

const K = /* @__PURE__ */ constants();

/** The first 32 bits of the fractions of the cube roots of the first 64 primes. */
function constants(): Int32Array {
  const found = new Int32Array(64);
  for (let prime = 2, at = 0; at < 64; prime++) {
    if (isPrime(prime)) found[at++] = (Math.cbrt(prime) % 1) * 2 ** 32;
  }
  return found;
}

function isPrime(number: number): boolean {
  for (let by = 2; by * by <= number; by++) if (number % by === 0) return false;
  return true;
}

const turned = (word: number, by: number): number => (word >>> by) | (word << (32 - by));

export class Sha256 {
  readonly #state = Int32Array.of(0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19);
  readonly #words = new Int32Array(64);
  readonly #block = new Uint8Array(64);
  readonly #view = new DataView(this.#block.buffer);
  #filled = 0;
  #length = 0;

  update(bytes: Uint8Array): this {
    this.#length += bytes.length;
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(64 - this.#filled, bytes.length - at);
      this.#block.set(bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === 64) this.#mix();
    }
    return this;
  }

  /** The 32 bytes of the digest. Nothing may be added behind it. */
  digest(): Uint8Array {
    const length = this.#length;
    this.update(Uint8Array.of(0x80));
    while (this.#filled !== 56) this.update(Uint8Array.of(0));
    this.#view.setUint32(56, length / 2 ** 29);
    this.#view.setUint32(60, (length * 8) >>> 0);
    this.#mix();
    const found = new Uint8Array(32);
    const view = new DataView(found.buffer);
    this.#state.forEach((word, place) => view.setInt32(place * 4, word));
    return found;
  }

  #mix(): void {
    const words = this.#words;
    for (let at = 0; at < 16; at++) words[at] = this.#view.getInt32(at * 4);
    for (let at = 16; at < 64; at++) {
      const one = words[at - 15]!;
      const two = words[at - 2]!;
      const low = turned(one, 7) ^ turned(one, 18) ^ (one >>> 3);
      const high = turned(two, 17) ^ turned(two, 19) ^ (two >>> 10);
      words[at] = words[at - 16]! + low + words[at - 7]! + high;
    }
    let [a, b, c, d, e, f, g, h] = this.#state as unknown as [number, number, number, number, number, number, number, number];
    for (let at = 0; at < 64; at++) {
      const first = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + K[at]! + words[at]!) | 0;
      const second = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, place) => {
      this.#state[place]! += word;
    });
    this.#filled = 0;
  }
}
