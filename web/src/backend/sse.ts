/**
 * Server-sent events, as far as an answer of the server needs them: the `data` of each event. Bytes may be cut anywhere,
 * in the middle of a character, of a line end or of an event.
 */
export class EventParser {
  private readonly decoder = new TextDecoder();
  private rest = "";
  private data: string[] = [];

  /** The data of the events that `bytes` complete. */
  push(bytes: Uint8Array): string[] {
    return this.lines(this.decoder.decode(bytes, { stream: true }));
  }

  private lines(text: string): string[] {
    this.rest += text;
    const events: string[] = [];
    for (;;) {
      const end = this.rest.search(/[\r\n]/);
      if (end < 0) break;
      // The second half of a line end may come later.
      if (this.rest[end] === "\r" && end + 1 === this.rest.length) break;
      const line = this.rest.slice(0, end);
      this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
      const event = this.line(line);
      if (event !== null) events.push(event);
    }
    return events;
  }

  private line(line: string): string | null {
    if (line === "") {
      if (this.data.length === 0) return null;
      const event = this.data.join("\n");
      this.data = [];
      return event;
    }
    if (line.startsWith("data:")) this.data.push(line.slice(line[5] === " " ? 6 : 5));
    // Comments (`: waiting`) and other fields mean nothing here.
    return null;
  }
}
