// Messages of errors that look like what was searched for, above the results. Names, numbers and addresses in a
// printed message differ each time; the words between them do not, and a part of them is enough.
(() => {
  const wordsOf = (text) => [...new Set(text.toLowerCase().match(/[\p{L}\p{N}_]{2,}/gu) ?? [])];
  const weightOf = (words) => words.reduce((sum, word) => sum + word.length, 0);
  const query = (new URLSearchParams(location.search).get("q") ?? "").replace(/\s+/g, " ");
  const typed = wordsOf(query);

  // The whole message was pasted: all that does not differ is there, in this order.
  const isWhole = (text) => {
    let end = 0;
    return text.split("…").every((part) => (end = query.indexOf(part, end) + part.length) >= part.length);
  };

  const likeness = (text) => {
    const words = wordsOf(text);
    if (words.join("").length > 5 && isWhole(text)) return 2 + text.length / 1000;
    const found = words.filter((word) => typed.includes(word));
    if (found.filter((word) => word.length > 3).length < 2) return 0; // the others are in any sentence
    const weight = weightOf(found);
    return Math.max(weight / weightOf(words), (0.9 * weight) / weightOf(typed)) + weight / 1000;
  };

  const linkTo = (address, text) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = address;
    link.appendChild(document.createElement("code")).textContent = text;
    item.append(link);
    return item;
  };

  const show = () => {
    const scored = Object.entries(ERROR_MESSAGES)
      .map(([address, text]) => ({ address, text, score: likeness(text) }))
      .sort((one, other) => other.score - one.score);
    const best = scored.filter(({ score }) => score > Math.max(0.5, 0.7 * scored[0].score)).slice(0, 5);
    const results = document.getElementById("search-results");
    if (!results || !best.length) return;
    const section = document.createElement("section");
    section.className = "search-messages";
    section.appendChild(document.createElement("h2")).textContent = "Messages of errors";
    section.appendChild(document.createElement("ul")).append(...best.map(({ address, text }) => linkTo(address, text)));
    results.before(section);
  };
  document.addEventListener("DOMContentLoaded", show);
})();
