// What keys and pointer do.

import { el } from "./dom";

const ALL: [string, [string, string][]][] = [
  ["Timeline", [
    ["drag", "select a part of the time; every view speaks of it"], ["click", "put the cursor; on an area, show its stack"],
    ["wheel, + and −", "zoom"], ["Shift and drag, ← and →", "pan"], ["Page up, Page down", "pan by a screen"], ["Shift with ← and →", "move the cursor"],
    ["S", "select what is shown"], ["[ and ]", "select from or to the cursor"], ["Escape", "take the selection away"], ["Home, double click", "all the time"],
  ]],
  ["Flame graph", [["click, Enter", "zoom to a box"], ["arrows", "from box to box"], ["Escape", "show the whole graph"]]],
  ["Everywhere", [["/", "search functions and files"], ["?", "this list"], ["Escape", "close what is open"]]],
];

export function help(): { button: HTMLElement; dialog: HTMLDialogElement } {
  const dialog = el("dialog", { class: "card help", "aria-labelledby": "help-title" });
  const list = el("div", { class: "keys" });
  for (const [title, keys] of ALL) {
    const rows = el("dl");
    for (const [key, what] of keys) rows.append(el("dt", {}, key), el("dd", {}, what));
    list.append(el("section", {}, el("h3", {}, title), rows));
  }
  dialog.append(el("div", { class: "head" }, el("h2", { id: "help-title" }, "Keys and pointer"), el("div", { class: "tools" }, el("button", { type: "button", click: () => dialog.close() }, "Close"))), list);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
    if (event.key === "?" && !typing && !dialog.open) dialog.showModal();
  });
  return { button: el("button", { type: "button", title: "Keys and pointer (?)", "aria-label": "Help: keys and pointer", click: () => dialog.showModal() }, "?"), dialog };
}
