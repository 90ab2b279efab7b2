// Markdown as elements of the page. Nothing is ever parsed as HTML: marked gives tokens, and each becomes an element made here, so what a
// model writes cannot bring scripts, styles, or requests: HTML is shown as the text that it is, images as links.

import { Lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren, JSX } from "preact";
import { useMemo } from "preact/hooks";
import { texts } from "../texts/texts.js";
import { CopyButton } from "./copy-button.js";
import { Scrolled } from "./scrolled.js";

export function Markdown({ text }: { readonly text: string }) {
  const tokens = useMemo(() => lexed(text), [text]);
  return <div class="markdown">{blocks(tokens)}</div>;
}

/** What the parser cannot read, it should not take the page down with. */
function lexed(text: string): Token[] {
  try {
    return new Lexer({ gfm: true, breaks: true }).lex(text);
  } catch {
    return [{ type: "text", raw: text, text } as Token];
  }
}

function blocks(tokens: readonly Token[]): ComponentChildren[] {
  return tokens.map((token, i) => block(token, i));
}

function block(token: Token, key: number): ComponentChildren {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return heading(token as Tokens.Heading, key);
    case "paragraph":
      return <p key={key}>{inlines((token as Tokens.Paragraph).tokens)}</p>;
    case "code":
      return <CodeBlock key={key} code={(token as Tokens.Code).text} language={(token as Tokens.Code).lang ?? ""} />;
    case "blockquote":
      return <blockquote key={key}>{blocks((token as Tokens.Blockquote).tokens)}</blockquote>;
    case "list":
      return list(token as Tokens.List, key);
    case "table":
      return table(token as Tokens.Table, key);
    case "hr":
      return <hr key={key} />;
    case "html":
      return <p key={key}>{token.raw}</p>;
    default:
      return inline(token, key);
  }
}

/** Headings of an answer are below those of the page. */
function heading({ depth, tokens }: Tokens.Heading, key: number): JSX.Element {
  const Heading = `h${Math.min(6, depth + 2)}` as "h3";
  return <Heading key={key}>{inlines(tokens)}</Heading>;
}

function list({ ordered, start, items }: Tokens.List, key: number): JSX.Element {
  const children = items.map((item, i) => (
    <li key={i} class={item.task ? "task" : undefined}>
      {item.task && (
        <input
          type="checkbox"
          checked={item.checked === true}
          disabled
          aria-label={item.checked ? texts.value.yes : texts.value.no}
        />
      )}
      {blocks(item.tokens.filter(({ type }) => type !== "checkbox"))}
    </li>
  ));
  if (!ordered) return <ul key={key}>{children}</ul>;
  return (
    <ol key={key} start={typeof start === "number" ? start : 1}>
      {children}
    </ol>
  );
}

function table({ header, rows }: Tokens.Table, key: number): JSX.Element {
  return (
    <Scrolled key={key} label="table">
      <table>
        <thead>
          <tr>
            {header.map((cell, i) => (
              <th key={i} scope="col">
                {inlines(cell.tokens)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.map((cell, j) => (
                <td key={j}>{inlines(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scrolled>
  );
}

function inlines(tokens: readonly Token[] | undefined): ComponentChildren[] {
  return (tokens ?? []).map((token, i) => inline(token, i));
}

function inline(token: Token, key: number): ComponentChildren {
  switch (token.type) {
    case "strong":
      return <strong key={key}>{inlines((token as Tokens.Strong).tokens)}</strong>;
    case "em":
      return <em key={key}>{inlines((token as Tokens.Em).tokens)}</em>;
    case "del":
      return <del key={key}>{inlines((token as Tokens.Del).tokens)}</del>;
    case "codespan":
      return <code key={key}>{(token as Tokens.Codespan).text}</code>;
    case "br":
      return <br key={key} />;
    case "link":
      return link((token as Tokens.Link).href, inlines((token as Tokens.Link).tokens), key);
    case "image":
      return link((token as Tokens.Image).href, [(token as Tokens.Image).text || (token as Tokens.Image).href], key);
    case "text": {
      const { tokens, text } = token as Tokens.Text;
      return tokens ? inlines(tokens) : text;
    }
    case "escape":
      return (token as Tokens.Escape).text;
    default:
      return token.raw;
  }
}

/** Only to other pages and addresses: whatever else an address may do is not done. */
function link(href: string, children: ComponentChildren[], key: number): ComponentChildren {
  if (!/^(https?:|mailto:)/i.test(href)) return children;
  return (
    <a key={key} href={href} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

function CodeBlock({ code, language }: { readonly code: string; readonly language: string }) {
  return (
    <div class="code">
      <div class="code-head">
        <span>{language.split(/\s/)[0]}</span>
        <CopyButton text={code} />
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: without it the keyboard cannot scroll */}
      <pre tabIndex={0}>
        <code>{code}</code>
      </pre>
    </div>
  );
}
