#!/usr/bin/env python3
"""Checks a page of `retort report` by Python's own parsers: well-formed as XML, and as HTML of elements that stand by
themselves: every id once, every link to one that is there, no script, and nothing that would be fetched."""
import html.parser
import sys
import xml.etree.ElementTree

FETCHING = {'src', 'href', 'srcset', 'data', 'poster', 'action', 'background', 'xlink:href'}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.complaints = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag in ('script', 'iframe', 'object', 'embed', 'link', 'base'):
            self.complaints.append(f'an element <{tag}>')
        for name, value in attributes:
            if name == 'id':
                self.ids.append(value)
            if name.startswith('on'):
                self.complaints.append(f'a handler {name}="{value}"')
            if name in FETCHING and value.startswith('#'):
                self.links.append(value[1:])
            elif name in FETCHING and not value.startswith('data:image/png;base64,'):
                self.complaints.append(f'{name}="{value[:60]}" is not in the page')
        if tag in ('img', 'image', 'svg') and not {'alt', 'aria-label', 'aria-hidden', 'preserveaspectratio'} & dict(
                attributes).keys():
            self.complaints.append(f'a picture without words: {attributes[:3]}')


with open(sys.argv[1], encoding='utf-8') as file:
    text = file.read()
xml.etree.ElementTree.fromstring(text.removeprefix('<!DOCTYPE html>'))
page = Page()
page.feed(text)
page.close()
page.complaints += [f'id {name} is there twice' for name in set(page.ids) if page.ids.count(name) > 1]
page.complaints += [f'a link to #{name}, which is not there' for name in page.links if name not in page.ids]
if not page.ids:
    page.complaints.append('no sections')
print('\n'.join(page.complaints), end='')
sys.exit(bool(page.complaints))
