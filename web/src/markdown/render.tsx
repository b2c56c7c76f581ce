import type { ComponentChildren, JSX } from "preact";
import { useMemo } from "preact/hooks";
import { CodeBlock } from "../ui/CodeBlock.tsx";
import { usePage } from "../ui/context.ts";
import { type Block, parseMarkdown } from "./blocks.ts";
import type { Inline } from "./inline.ts";

/** Headings of an answer come below those of the page. */
const HEADING_OFFSET = 2;

/** Text of a model as elements. All of it passes through text nodes and the few elements below. */
export function Markdown({ source }: { source: string }): JSX.Element {
  const blocks = useMemo(() => parseMarkdown(source), [source]);
  return <>{blocks.map(renderBlock)}</>;
}

function renderBlock(block: Block, key: number): JSX.Element {
  switch (block.t) {
    case "paragraph":
      return <p key={key}>{block.content.map(renderInline)}</p>;
    case "heading": {
      const Tag = `h${Math.min(6, block.level + HEADING_OFFSET)}` as "h3";
      return <Tag key={key}>{block.content.map(renderInline)}</Tag>;
    }
    case "code":
      return <CodeBlock key={key} language={block.language} text={block.text} />;
    case "quote":
      return <blockquote key={key}>{block.blocks.map(renderBlock)}</blockquote>;
    case "list": {
      const items = block.items.map((item, i) => <li key={i}>{renderItem(item)}</li>);
      return block.start === null ? (
        <ul key={key}>{items}</ul>
      ) : (
        <ol key={key} start={block.start}>
          {items}
        </ol>
      );
    }
    case "table":
      return (
        <TableFrame key={key}>
          <table>
            <thead>
              <tr>
                {block.head.map((cell, i) => (
                  <th key={i} class={alignClass(block.align[i])} scope="col">
                    {cell.map(renderInline)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {block.rows.map((row, r) => (
                <tr key={r}>
                  {row.map((cell, i) => (
                    <td key={i} class={alignClass(block.align[i])}>
                      {cell.map(renderInline)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      );
    case "rule":
      return <hr key={key} />;
  }
}

/** A table may be wider than the text; then it scrolls by itself. */
function TableFrame({ children }: { children: ComponentChildren }): JSX.Element {
  const { t } = usePage();
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
    <div class="table" tabIndex={0} role="group" aria-label={t.table}>
      {children}
    </div>
  );
}

function alignClass(align: string | null | undefined): string | undefined {
  return align ? `align-${align}` : undefined;
}

/** A list whose items are single paragraphs is set close. */
function renderItem(blocks: Block[]): ComponentChildren {
  return blocks.map((block, i) =>
    block.t === "paragraph" && blocks.every((b, j) => b.t !== "paragraph" || j === i)
      ? block.content.map(renderInline)
      : renderBlock(block, i),
  );
}

function renderInline(inline: Inline, key: number): JSX.Element | string {
  switch (inline.t) {
    case "text":
      return inline.text;
    case "code":
      return <code key={key}>{inline.text}</code>;
    case "strong":
      return <strong key={key}>{inline.content.map(renderInline)}</strong>;
    case "em":
      return <em key={key}>{inline.content.map(renderInline)}</em>;
    case "del":
      return <del key={key}>{inline.content.map(renderInline)}</del>;
    case "break":
      return <br key={key} />;
    case "link":
      return (
        <a key={key} href={inline.href} title={inline.href} target="_blank" rel="noopener noreferrer nofollow">
          {inline.content.map(renderInline)}
        </a>
      );
  }
}
