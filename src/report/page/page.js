'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const by = id => document.getElementById(id);
// An element with classes and text; text is text, whatever it holds.
const make = (name, classes, text) => {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  return element;
};
const option = (select, value, text) => { const made = make('option', '', text); made.value = value; select.append(made); };
const colour = variant => 'c' + variant % 10;

// The ranking, sorted by any column.
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => head.dataset.sort && head.querySelector('button').addEventListener('click', () => {
    const text = head.dataset.sort === 'text';
    const was = head.getAttribute('aria-sort');
    const up = was ? was === 'descending' : text || at === 0;
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const value = row => { const raw = row.cells[at].dataset.value; return text ? raw : raw === '' || raw === 'none' ? NaN : Number(raw); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (text) return up ? x.localeCompare(y) : y.localeCompare(x);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return up ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  }));
}

// Differences from any variant.
const base = by('base');
if (base) {
  const bases = new Set(data.pairs.flatMap(pair => data.pairs.length < data.variants.length ? [pair.a] : [pair.a, pair.b]));
  data.variants.forEach((name, at) => bases.has(at) && option(base, at, name));
  const flip = text => text.split(' to ').map(part => part.startsWith('+') ? '−' + part.slice(1) : '+' + part.slice(1)).reverse().join(' to ');
  const show = () => {
    const from = Number(base.value);
    const body = by('pairs').tBodies[0];
    body.replaceChildren();
    data.variants.forEach((name, at) => {
      const pair = data.pairs.find(pair => pair.a === from && pair.b === at || pair.b === from && pair.a === at);
      if (!pair) return;
      const turned = pair.b === from;
      const row = make('tr');
      const head = make('th', 'left');
      head.append(make('i', 'dot ' + colour(at)), name);
      row.append(head, make('td', 'main', turned ? flip(pair.difference) : pair.difference),
        make('td', '', turned ? flip(pair.interval) : pair.interval), make('td', '', pair.p));
      const tag = make('td', 'left');
      tag.append(make('span', 'tag ' + (pair.significant ? 'sure' : 'unsure'), pair.significant ? 'significant' : 'not significant'));
      row.append(tag);
      body.append(row);
    });
  };
  base.addEventListener('change', show);
  show();
}

// The gallery.
const PAGE = 24, MOST = 6;
const cards = by('cards');
let shown = 0, chosen = data.images;
const scores = image => {
  if (image.scores) return image.scores;
  const sums = data.variants.map(() => [0, 0]);
  for (const said of image.said) for (const run of said.r) { const sum = sums[data.runs[run].variant]; sum[0] += said.s; sum[1]++; }
  image.scores = sums.map(([sum, count]) => count ? sum / count : NaN);
  image.mean = image.scores.reduce((sum, score) => sum + score, 0) / image.scores.length;
  return image.scores;
};
data.variants.forEach((name, at) => { option(by('whose'), at, name); option(by('less'), at, name); });
const lower = text => text.toLowerCase();
const escaped = text => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const pattern = () => {
  const word = by('word').value.trim();
  return word ? new RegExp('(^|[^\\p{L}\\p{N}])(' + escaped(lower(word)) + ')(?![\\p{L}\\p{N}])', 'iu') : null;
};
const choose = () => {
  const [sort, whose, less, where, word] = [by('sort').value, by('whose').value, by('less').value, by('where').value, pattern()];
  const value = image => {
    const all = scores(image);
    return (whose === '' ? image.mean : all[whose]) - (less === '' ? 0 : all[less]);
  };
  const texts = image => [...(where === 'refs' ? [] : image.said.map(said => said.c)), ...(where === 'said' ? [] : image.refs)];
  chosen = data.images.filter(image => !word || texts(image).some(text => word.test(text)));
  if (sort === 'apart') chosen.sort((a, b) => b.apart - a.apart);
  else if (sort === 'id') chosen.sort((a, b) => a.id < b.id ? -1 : 1);
  else chosen.sort((a, b) => sort === 'high' ? value(b) - value(a) : value(a) - value(b));
  by('count').textContent = chosen.length === 1 ? '1 image' : chosen.length + ' images';
  cards.replaceChildren();
  shown = 0;
  more();
};
const more = () => {
  const word = pattern();
  cards.append(...chosen.slice(shown, shown + PAGE).map(image => card(image, word)));
  shown = Math.min(shown + PAGE, chosen.length);
  by('more').hidden = shown >= chosen.length;
};
// Text with the words that are looked for marked.
const marked = (text, word) => {
  const made = document.createDocumentFragment();
  for (let found; word && (found = word.exec(text));) {
    const start = found.index + found[1].length;
    made.append(text.slice(0, start), make('mark', '', text.slice(start, start + found[2].length)));
    text = text.slice(start + found[2].length);
  }
  made.append(text);
  return made;
};
const card = (image, word) => {
  const made = make('article', 'card');
  const photo = make('div', 'photo');
  let canvas;
  if (image.photo) {
    const picture = make('img');
    picture.alt = image.refs[0] || image.id;
    [picture.height, picture.width] = image.size;
    picture.style.height = 'auto';
    picture.loading = 'lazy';
    picture.src = 'data:image/jpeg;base64,' + image.photo;
    canvas = make('canvas');
    photo.append(picture, canvas);
    made.append(photo);
  }
  const body = make('div', 'body');
  const title = make('h3', '', image.id);
  if (data.variants.length > 1) title.append(make('span', '', 'disagreement ' + image.apart.toFixed(0)));
  const list = make('ul'), rest = make('ul');
  for (const [at, said] of image.said.entries()) {
    const item = make('li', 'said');
    const who = make('div', 'who');
    who.append(make('b', '', said.s.toFixed(0)));
    const variants = new Map();
    for (const run of said.r) { const of = data.runs[run].variant; variants.set(of, [...(variants.get(of) || []), run]); }
    for (const [variant, runs] of variants) {
      const chip = make('span');
      chip.title = runs.map(run => data.runs[run].name).join(', ');
      const seeds = data.runs.filter(run => run.variant === variant).length;
      chip.append(make('i', 'dot ' + colour(variant)), data.variants[variant] + (seeds > 1 ? ' ' + runs.length + '/' + seeds : ''));
      who.append(chip);
    }
    const look = (image.looks || []).find(look => said.r.includes(look.run));
    if (look && canvas) who.append(make('span', '', '◉'));
    const words = make('div', 'words');
    if (look && canvas) lookable(words, look, image, canvas, word);
    else words.append(marked(said.c || '(no words)', word));
    item.append(who, words);
    (at < MOST ? list : rest).append(item);
  }
  const references = make('details');
  references.open = image.said.length < 4;
  references.append(make('summary', '', image.refs.length === 1 ? 'reference' : image.refs.length + ' references'));
  const texts = make('ul');
  for (const text of image.refs) { const item = make('li'); item.append(marked(text, word)); texts.append(item); }
  references.append(texts);
  body.append(title, list);
  if (rest.firstChild) {
    const more = make('details', 'rest');
    more.append(make('summary', '', image.said.length - MOST + ' more captions'), rest);
    body.append(more);
  }
  body.append(references);
  made.append(body);
  return made;
};

// Attention, word by word, over the photograph.
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const share = letter => LETTERS.indexOf(letter) / 63;
const lookable = (words, look, image, canvas, wanted) => {
  const clear = () => { canvas.width = canvas.height = 0; words.querySelectorAll('.on').forEach(word => word.classList.remove('on')); };
  look.tokens.forEach((token, at) => {
    const word = make('span');
    word.append(token === '' ? '■' : marked(token, wanted));
    word.tabIndex = 0;
    const on = () => { clear(); word.classList.add('on'); draw(canvas, image, look, at); };
    word.addEventListener('pointerenter', on);
    word.addEventListener('focus', on);
    word.addEventListener('click', on);
    word.addEventListener('pointerleave', clear);
    word.addEventListener('blur', clear);
    words.append(word, ' ');
  });
};
const draw = (canvas, image, look, at) => {
  const picture = canvas.parentNode.querySelector('img');
  const [height, width] = image.size;
  const box = picture.getBoundingClientRect();
  const scale = Math.min(box.width / width, box.height / height);
  const [w, h] = [width * scale, height * scale];
  const dense = window.devicePixelRatio || 1;
  Object.assign(canvas, {width: w * dense, height: h * dense});
  Object.assign(canvas.style, {width: w + 'px', height: h + 'px', left: (box.width - w) / 2 + 'px', top: (box.height - h) / 2 + 'px'});
  const pen = canvas.getContext('2d');
  pen.scale(dense, dense);
  pen.fillStyle = 'rgba(0,0,0,.45)';
  pen.fillRect(0, 0, w, h);
  let next = 0;
  const weights = look.w[at];
  for (const name of look.parts) {
    const part = image.parts[name];
    const [rows, columns] = part.cells;
    for (const frame of part.frames) {
      const own = [...weights.slice(next, next + rows * columns)].map(share);
      next += rows * columns;
      if (!frame) continue;
      const [x1, y1, x2, y2] = frame.map((value, axis) => value / 1000 * (axis % 2 ? h : w));
      if (rows * columns === 1) outline(pen, x1, y1, x2, y2, own[0]);
      else heat(pen, own, rows, columns, x1, y1, x2, y2);
    }
  }
};
const outline = (pen, x1, y1, x2, y2, weight) => {
  if (weight < .05) return;
  pen.fillStyle = `rgba(255,200,60,${.28 * weight})`;
  pen.strokeStyle = `rgba(255,200,60,${.25 + .75 * weight})`;
  pen.lineWidth = 1 + 2.5 * weight;
  pen.fillRect(x1, y1, x2 - x1, y2 - y1);
  pen.strokeRect(x1 + 1, y1 + 1, x2 - x1 - 2, y2 - y1 - 2);
};
const heat = (pen, weights, rows, columns, x1, y1, x2, y2) => {
  const small = make('canvas');
  [small.width, small.height] = [columns, rows];
  const ink = small.getContext('2d');
  const pixels = ink.createImageData(columns, rows);
  weights.forEach((weight, at) => pixels.data.set([255, 200 - 90 * weight, 60, 225 * weight], 4 * at));
  ink.putImageData(pixels, 0, 0);
  pen.save();
  pen.imageSmoothingQuality = 'high';
  pen.translate(x1, y1);
  pen.scale(Math.sign(x2 - x1), 1);
  pen.drawImage(small, 0, 0, Math.abs(x2 - x1), y2 - y1);
  pen.restore();
};
for (const id of ['sort', 'whose', 'less', 'where']) by(id).addEventListener('change', choose);
let waiting;
by('word').addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); });
by('more').addEventListener('click', more);
choose();

// A recipe, and what differs in another.
const [left, right] = [by('left'), by('right')];
data.runs.forEach((run, at) => { option(left, at, run.name); option(right, at, run.name); });
if (data.runs.length > 1) right.value = data.runs.findIndex(run => run.variant === 1) > 0 ? data.runs.findIndex(run => run.variant === 1) : 1;
// The lines of two texts by their longest common subsequence.
const compared = (a, b) => {
  const table = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--)
    table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const lines = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push(['', a[i]]); i++; j++; }
    else if (j >= b.length || i < a.length && table[i + 1][j] >= table[i][j + 1]) lines.push(['out', a[i++]]);
    else lines.push(['in', b[j++]]);
  }
  return lines;
};
const recipes = () => {
  const [a, b] = [left, right].map(select => data.runs[select.value].recipe.trimEnd().split('\n'));
  let section = '', told = '';
  const pre = by('recipe');
  pre.replaceChildren();
  for (const [kind, line] of compared(a, b)) {
    if (line.startsWith('[')) section = line;
    if (by('only').checked) {
      if (!kind) continue;
      if (section !== told && line !== section) { pre.append(make('span', '', '  ' + section + '\n')); told = section; }
    }
    pre.append(make('span', kind, {'': '  ', out: '− ', in: '+ '}[kind] + line + '\n'));
  }
  if (!pre.firstChild) pre.append('The recipes are the same.');
};
for (const input of [left, right, by('only')]) input.addEventListener('change', recipes);
if (data.runs.length) recipes();
})();
