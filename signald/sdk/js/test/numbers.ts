// Numbers of one direction: 1, 2, 3, ... is the whole proof.

export class Numbers {
  sent = 0;
  duplicated = 0;
  reordered = 0;
  #next = 1;
  readonly #missing = new Set<number>();

  receive(number: number): void {
    if (number === this.#next) this.#next += 1;
    else if (number > this.#next) {
      for (; this.#next < number; this.#next++) this.#missing.add(this.#next);
      this.#next += 1;
    } else if (this.#missing.delete(number)) this.reordered += 1;
    else this.duplicated += 1;
  }

  get arrived(): number {
    return this.#next - 1 - this.#missing.size;
  }
}
