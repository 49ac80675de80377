// Text of the open page that cannot be read in full, a line each: cut by its box or picture, or
// lying on other text.
(() => {
  const said = [];
  document.querySelectorAll("details").forEach(each => { each.open = true; });
  const short = text => text.trim().replace(/\s+/g, " ").slice(0, 40);
  for (const box of document.querySelectorAll("body *")) {
    const style = getComputedStyle(box);
    // The plot of a sweep may be scrolled; names that end in an ellipsis have a tooltip.
    if (style.overflowX === "visible" || box.matches(".plot, [title], svg, svg *")) continue;
    if (box.scrollWidth > box.clientWidth + 1) said.push(`cut: ${short(box.innerText)}`);
  }
  const seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.data.trim() || node.parentElement.closest("title, style, script")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const picture = node.parentElement.closest("svg.pareto, figure > svg");
    const frame = picture && picture.getBoundingClientRect();
    for (const part of range.getClientRects()) {
      if (frame && (part.left < frame.left - 1 || part.right > frame.right + 1
          || part.top < frame.top - 1 || part.bottom > frame.bottom + 1)) {
        said.push(`cut by its picture: ${short(node.data)}`);
      }
      seen.push([part, node.data]);
    }
  }
  seen.sort(([a], [b]) => a.top - b.top);
  seen.forEach(([a, first], index) => {
    for (let next = index + 1; next < seen.length && seen[next][0].top < a.bottom; next++) {
      const [b, second] = seen[next];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - b.top;
      // Boxes of lines are higher than their letters.
      if (across > 2 && down > 0.4 * Math.min(a.height, b.height)) {
        said.push(`on one another: ${short(first)} | ${short(second)}`);
      }
    }
  });
  return said;
})()
