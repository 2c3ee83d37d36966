/** Pipes as the kernel sees them: pages, ends, and an agreement with a plain queue. What programs see: usertests. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytes_of, bytes_to_string } from "../../../kernel/fs/bytes.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import { File, Inode, S_IFIFO, inode_type, type FilePtr } from "../../../kernel/fs/fs.ts";
import { file_llseek, file_read, file_stat, file_truncate, file_write } from "../../../kernel/fs/open.ts";
import { PIPE_BUF, PIPE_DEF_BUFFERS, create_pipe_files, pipe_bytes } from "../../../kernel/fs/pipe.ts";
import { EAGAIN, EBADF, EINVAL, ENOMEM, EPIPE, ESPIPE } from "../../../kernel/lib/errno.ts";
import { drain_all_pages } from "../../../mm/pcp.ts";
import { nr_free_pages } from "../../../mm/page_alloc.ts";
import { expect_same, figures, with_each_failure, with_files } from "./files.ts";

const CAPACITY = PIPE_DEF_BUFFERS * PIPE_BUF;

function with_pipe<T>(fn: (reader: FilePtr, writer: FilePtr) => T): T {
  const [reader, writer] = create_pipe_files() as readonly [FilePtr, FilePtr];
  const result = fn(reader, writer);
  fput(reader);
  fput(writer);
  return result;
}

const text_in = (file: FilePtr, count: number): string | number => {
  const bytes = file_read(file, count);
  return typeof bytes === "number" ? bytes : bytes_to_string(bytes);
};

describe("a pipe", () => {
  it("fills up the last page, then takes new ones, and frees each as it is read empty", () => {
    with_files(() =>
      with_pipe((reader, writer) => {
        const pages_taken = (): number => {
          drain_all_pages();
          return before - nr_free_pages();
        };
        drain_all_pages();
        const before = nr_free_pages();
        for (let i = 0; i < 4; i++) expect(file_write(writer, new Uint8Array(1000).fill(i))).toBe(1000);
        expect(pages_taken()).toBe(1);
        expect(file_write(writer, new Uint8Array(1000).fill(4))).toBe(1000); // does not fit behind the four
        expect(pages_taken()).toBe(2);
        expect((file_read(reader, 3999) as Uint8Array).length).toBe(3999);
        expect(pages_taken()).toBe(2);
        expect(file_read(reader, 2)).toEqual(new Uint8Array([3, 4]));
        expect(pages_taken()).toBe(1);
        expect(pipe_bytes(reader)).toBe(999);
      }),
    );
  });

  it("holds 16 pages, and takes a page's worth whole or not at all", () => {
    with_files(() =>
      with_pipe((reader, writer) => {
        expect(file_write(writer, new Uint8Array(CAPACITY + 1))).toBe(CAPACITY);
        expect(file_write(writer, new Uint8Array(1))).toBe(-EAGAIN);
        expect((file_read(reader, 100) as Uint8Array).length).toBe(100);
        expect(file_write(writer, new Uint8Array(PIPE_BUF))).toBe(-EAGAIN);
        expect((file_read(reader, PIPE_BUF) as Uint8Array).length).toBe(PIPE_BUF);
        expect(file_write(writer, new Uint8Array(PIPE_BUF))).toBe(PIPE_BUF);
      }),
    );
  });

  it("ends with its last writer, and is broken without a reader", () => {
    with_files(() => {
      const [reader, writer] = create_pipe_files() as readonly [FilePtr, FilePtr];
      expect([text_in(reader, 10), text_in(reader, 0)]).toEqual([-EAGAIN, ""]);
      file_write(writer, bytes_of("last words"));
      fput(writer);
      expect([text_in(reader, 4), text_in(reader, 100), text_in(reader, 100)]).toEqual(["last", " words", ""]);
      fput(reader);
      const [other, left] = create_pipe_files() as readonly [FilePtr, FilePtr];
      fput(other);
      expect(file_write(left, bytes_of("x"))).toBe(-EPIPE);
      fput(left);
    });
  });

  it("is an inode without a name, of type FIFO, in which one cannot seek", () => {
    with_files(() =>
      with_pipe((reader, writer) => {
        const inode = File.f_inode.get(reader);
        expect(inode).toBe(File.f_inode.get(writer));
        expect([inode_type(inode), Inode.i_count.get(inode), file_stat(writer).nlink]).toEqual([S_IFIFO, 1, 1]);
        expect([file_llseek(reader, 0, 0), file_truncate(writer, 0)]).toEqual([-ESPIPE, -EINVAL]);
        expect([file_write(reader, bytes_of("x")), file_read(writer, 1)]).toEqual([-EBADF, -EBADF]);
      }),
    );
  });

  it("agrees with a plain queue over random writes and reads", () => {
    const step = fc.tuple(fc.boolean(), fc.oneof(fc.nat(300), fc.nat(3 * CAPACITY)));
    with_files(() => {
      const run = (steps: [boolean, number][]): void =>
        with_pipe((reader, writer) => {
          let [queue, next] = ["", 0];
          for (const [writes, count] of steps) {
            const text = Array.from({ length: writes ? count : 0 }, () => String.fromCharCode(next++ & 0xff)).join("");
            if (!writes) {
              const expected = queue === "" && count > 0 ? -EAGAIN : queue.slice(0, count);
              expect(text_in(reader, count)).toBe(expected);
              if (typeof expected === "string") queue = queue.slice(count);
              continue;
            }
            const written = file_write(writer, bytes_of(text));
            // It takes all that has room in whole pages; a small write in whole or not at all.
            if (count <= PIPE_BUF) expect([count, count === 0 ? 0 : -EAGAIN]).toContain(written);
            else expect(written === -EAGAIN || written > 0).toBe(true);
            if (written === -EAGAIN) expect(queue.length + PIPE_BUF).toBeGreaterThan(PIPE_DEF_BUFFERS);
            queue += text.slice(0, Math.max(written, 0));
            next -= count - Math.max(written, 0);
            expect(pipe_bytes(writer)).toBe(queue.length);
          }
        });
      fc.assert(fc.property(fc.array(step, { maxLength: 30 }), run), { seed: 5, numRuns: 40 });
    });
  });

  it("that cannot be made, or has no page for what is written, says -ENOMEM and loses nothing", () => {
    with_files(() => {
      const before = figures();
      const failures = with_each_failure(
        () => {
          const ends = create_pipe_files();
          if (typeof ends === "number") return [ends];
          const written = file_write(ends[1], new Uint8Array(3 * PIPE_BUF));
          const read = file_read(ends[0], CAPACITY);
          for (const file of ends) fput(file);
          return [0, written, typeof read === "number" ? read : read.length];
        },
        ([error, written, read], failed) => {
          if (error !== 0) expect(error).toBe(-ENOMEM);
          else if (written! < 0) expect([written, read]).toEqual([-ENOMEM, -EAGAIN]);
          else expect(written).toBe(read);
          expect(failed || written === 3 * PIPE_BUF).toBe(true);
          expect_same(before);
        },
      );
      expect(failures).toBeGreaterThanOrEqual(8);
    });
  });
});
