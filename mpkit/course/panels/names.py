"""Names for what a panel's controls are: what ipywidgets leaves out for those who do not see the page.

ipywidgets 8 gives its sliders, radio buttons and toggles no accessible name or state, and nothing in Python reaches
those parts of a widget. So the browser sets them, from the labels that stand there; a widget of HTML may hold a script
only as the answer to an error, here of a picture without a source.
"""

import html

import ipywidgets as widgets

# WAI-ARIA 1.2: "slider", "radiogroup", "progressbar" and "status" need a name; aria-pressed is the state of a toggle.
# A status region has to stay the same element, or a screen reader does not see that its words changed.
_SCRIPT = """
const begin = (image, tries) => {
const panel = image.closest('.mpkit-panel');
if (!panel) { if (tries) setTimeout(() => begin(image, tries - 1), 50); return; }  // not on the page yet
image.remove();
const set = (e, name, value) => { if (e.getAttribute(name) !== value) e.setAttribute(name, value); };
const all = (where, run) => panel.querySelectorAll(where).forEach(run);
const row = e => e.closest('.widget-inline-hbox, .widget-toggle-buttons');
const label = e => row(e)?.querySelector('.widget-label')?.innerText || '';
const above = e => {
  for (; e && e !== panel; e = e.parentElement)
    for (let s = e.previousElementSibling; s; s = s.previousElementSibling) if (s.innerText?.trim()) return s.innerText;
  return '';
};
const tell = () => {
  all('.noUi-handle', e => {
    set(e, 'aria-label', label(e));
    set(e, 'aria-valuetext', row(e)?.querySelector('.widget-readout')?.innerText || e.getAttribute('aria-valuenow'));
  });
  all('.widget-readout', e => { set(e, 'role', 'textbox'); set(e, 'aria-label', label(e) + ', to type'); });
  all('.widget-toggle-button, .widget-toggle-buttons button', e =>
    set(e, 'aria-pressed', String(e.classList.contains('mod-active'))));
  all('.widget-toggle-buttons', e => { set(e, 'role', 'group'); set(e, 'aria-label', label(e) || above(e)); });
  all('.widget-radio', e => { set(e, 'role', 'radiogroup'); set(e, 'aria-label', above(e)); });
  all('.widget-text input', e => { if (!label(e)) set(e, 'aria-label', above(e)); });
  all('[title="null"]', e => e.removeAttribute('title'));  // how ipywidgets writes that there is no tooltip
  all('.progress', e => { set(e, 'role', 'progressbar'); set(e, 'aria-label', 'progress'); });
  all('.widget-html-content > [role=status]', e => {
    set(e.parentElement, 'role', 'status');
    set(e.parentElement, 'aria-live', e.getAttribute('aria-live') || 'polite');
    e.removeAttribute('role');
    e.removeAttribute('aria-live');
  });
};
new MutationObserver(tell).observe(panel, {subtree: true, childList: true, characterData: true, attributes: true,
                                           attributeFilter: ['class']});
tell();
};
begin(this, 100);
"""
_STYLE = "<style>.mpkit-panel .widget-label { flex-shrink: 0; }</style>"  # on a narrow page a name stays whole


def named(box: widgets.Box) -> widgets.Widget:
    """What a box needs among its children for its controls to have names. It takes no room."""
    box.add_class("mpkit-panel")
    value = f'{_STYLE}<img alt="" src="data:," onerror="{html.escape(_SCRIPT)}">'
    return widgets.HTML(value, layout=widgets.Layout(display="none"))
