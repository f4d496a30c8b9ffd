"""Attempts to smuggle something executable through the sanitiser, each across random splits."""

import random
from html.parser import HTMLParser
from urllib.parse import urlsplit

import nh3
import pytest

from workers.answers.sanitise import ALLOWED, HtmlStream, to_text
from workers.guardrails.links import any_link

VECTORS = [
    # scripts, in the open and in disguise
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<script/src='//evil.example/x.js'></script>",
    "<script\t\n>alert(1)</script\t\n>",
    "<script>alert(1)",
    "<script><!--<script></script>alert(1)//--></script>",
    "<script x='</script>'>alert(1)</script>",
    "<scr\0ipt>alert(1)</scr\0ipt>",
    "<\0script>alert(1)</script>",
    "<\nscript>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<p><script>alert(1)</p></script>",
    "<b><script>alert(1)</b>",
    '<<script>alert("x");//<</script>',
    "<script>/*</p>*/alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&#x3c;script&#x3e;alert(1)",
    "&#0000000060script&#0000000062alert(1)",
    "&amp;lt;script&amp;gt;alert(1)",
    "&LT;script&GT;alert(1)",
    "\uff1cscript\uff1ealert(1)",
    "<\u017fcript>alert(1)</\u017fcript>",
    "<scrip\u212a>alert(1)",
    # event handlers on allowed and other elements
    "<p onclick=alert(1)>x</p>",
    "<p/onclick=alert(1)>x</p>",
    "<p\nonclick\n=\nalert(1)\n>x</p>",
    "<b onmouseover='alert(1)'>x</b>",
    "<b/onmouseover=alert(1)//>x",
    '<li onfocus="alert(1)" tabindex=1 autofocus>x',
    "<br onload=alert(1)>",
    "<br/onanimationstart=alert(1) style=animation-name:x>",
    "<h3 OnPointerEnter=alert(1)>x",
    '<code x=">" onclick=alert(1)>x</code>',
    "<em x='>' onclick=alert(1)>x</em>",
    '<em title="</em><script>alert(1)</script>">x</em>',
    '<em ="><script>alert(1)</script>" onclick=alert(1)>x',
    "<pre x=`><img src=y onerror=alert(1)>`>x</pre>",
    "<blockquote \x0conclick=alert(1)>x",
    "<blockquote \x0bonclick=alert(1)>x",
    "<p on\0click=alert(1)>x",
    "<ul style='background:url(javascript:alert(1))'><li style=behavior:url(#x)>x",
    "<p style='x:expression(alert(1))'>x",
    "<p id=x class=y name=z>x",
    "<p data-x=y contenteditable is=x slot=y part=z>x",
    "<p xmlns:xlink=x xlink:href=javascript:alert(1)>x",
    # media and embedding
    "<img src=x onerror=alert(1)>",
    "<img src=x onerror=alert(1)",
    "<img src=x onerror=alert(1) <p>x</p>",
    "<image src=x onerror=alert(1)>",
    "<img src='x' 'onerror=alert(1)'>",
    '<img """><script>alert(1)</script>">',
    "<img src=`x` onerror=`alert(1)`>",
    "<img/src/onerror=alert(1)>",
    "<img srcset='x 1x' sizes=1 lowsrc=javascript:alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)></audio>",
    "<video poster=javascript:alert(1)//></video>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<iframe/onload=alert(1)//",
    "<object data=javascript:alert(1)></object>",
    "<object><param name=movie value=x></object>",
    "<embed src=javascript:alert(1)>",
    "<applet code=x></applet>",
    "<canvas><img src=x onerror=alert(1)></canvas>",
    "<picture><source srcset=x><img src=x onerror=alert(1)></picture>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<details open ontoggle=alert(1)>x",
    "<dialog open onclose=alert(1)>x",
    "<portal src=//evil.example>",
    "<frameset onload=alert(1)><frame src=x></frameset>",
    # head, forms and other structure
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<link rel=import href=data:text/html,x>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<body onload=alert(1)>x",
    "<html manifest=//evil.example><head><title><script>alert(1)</script></title></head>",
    "<style>@import '//evil.example/x.css';</style>",
    "<style><img src='</style><img src=x onerror=alert(1)>'></style>",
    "<style>p{background:url(javascript:alert(1))}",
    "<form action=javascript:alert(1)><input type=submit>",
    "<form><button formaction=javascript:alert(1)>x</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<select autofocus onfocus=alert(1)><option>x</select>",
    "<textarea autofocus onfocus=alert(1)></textarea>",
    "<textarea><img title='</textarea><img src=x onerror=alert(1)>'>",
    "<keygen autofocus onfocus=alert(1)>",
    "<isindex type=image src=x onerror=alert(1)>",
    "<table background=javascript:alert(1)><td>x</table>",
    "<table><style><a title='</style><img src=x onerror=alert(1)>'>",
    # elements whose content a browser reads otherwise
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<noembed><img src='</noembed><img src=x onerror=alert(1)>'>",
    "<noframes><p title='</noframes><script>alert(1)</script>'>",
    "<xmp><p title='</xmp><script>alert(1)</script>'>",
    "<title><p title='</title><script>alert(1)</script>'>",
    "<plaintext><script>alert(1)</script>",
    "<listing>&lt;img src=x onerror=alert(1)></listing>",
    "<template><script>alert(1)</script></template>",
    "<template><template></template><img src=x onerror=alert(1)></template>",
    "<template shadowrootmode=open><script>alert(1)</script>",
    # foreign content
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><script href=data:,alert(1) /></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<svg><foreignObject><p onclick=alert(1)>x</p></foreignObject></svg>",
    "<svg></p><style><a title='</style><img src=x onerror=alert(1)>'>",
    "<svg><![CDATA[</svg><script>alert(1)</script>]]></svg>",
    "<svg><title><style><img src='</style><img src=x onerror=alert(1)>'></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<math href=javascript:alert(1)>x</math>",
    "<math><annotation-xml encoding=text/html><script>alert(1)</script></math>",
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=alert(1)>",
    # comments and declarations
    "<!--><script>alert(1)</script>-->",
    "<!---><script>alert(1)</script>-->",
    "<!-- --!><script>alert(1)</script>",
    "<!--[if gte IE 4]><script>alert(1)</script><![endif]-->",
    "<!-- <p title='--><script>alert(1)</script>'>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<![CDATA[><script>alert(1)</script>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<?><script>alert(1)</script>?>",
    "<!doctype html [<!entity x '<script>alert(1)</script>'>]>&x;",
    "<!><script>alert(1)</script>",
    "</><script>alert(1)</script>",
    "</ <script>alert(1)</script>>",
    "</p onclick=alert(1)>x",
    "<%<script>alert(1)</script>%>",
    "<div><!-- <script> --!><img src=x onerror=alert(1)>",
    # addresses
    "<a href=javascript:alert(1)>x</a>",
    "<a href=JaVaScRiPt:alert(1)>x</a>",
    "<a href=' javascript:alert(1)'>x</a>",
    "<a href='\x01javascript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href='java\nscript:alert(1)'>x</a>",
    "<a href='java\0script:alert(1)'>x</a>",
    "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href='&#x6a&#x61vascript:alert(1)'>x</a>",
    "<a href='javascript&colon;alert(1)'>x</a>",
    "<a href='javascript&#0000058alert(1)'>x</a>",
    "<a href='java&Tab;script:alert(1)'>x</a>",
    "<a href='java&NewLine;script:alert(1)'>x</a>",
    "<a href='\u2028javascript:alert(1)'>x</a>",
    "<a href='\u00a0javascript:alert(1)'>x</a>",
    "<a href='\ufeffjavascript:alert(1)'>x</a>",
    "<a href='java\u00adscript:alert(1)'>x</a>",
    "<a href='javascript:alert(1)//https://e.example'>x</a>",
    "<a href='javascript://e.example/%0aalert(1)'>x</a>",
    "<a href='https:javascript:alert(1)'>x</a>",
    "<a href='http:javascript:alert(1)'>x</a>",
    "<a href='mailto:javascript:alert(1)'>x</a>",
    "<a href=vbscript:msgbox(1)>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='data:text/html;base64,PHNjcmlwdD4='>x</a>",
    "<a href=blob:https://e.example/1>x</a>",
    "<a href='feed:javascript:alert(1)'>x</a>",
    "<a href='view-source:javascript:alert(1)'>x</a>",
    "<a href='jar:javascript:alert(1)!'>x</a>",
    "<a href='file:///etc/passwd'>x</a>",
    "<a href='//evil.example'>x</a>",
    "<a href='\\\\evil.example'>x</a>",
    "<a href='https://good.example\\@evil.example/'>x</a>",
    "<a href='https://good.example@evil.example/'>x</a>",
    "<a href='https://e.example/\"onclick=alert(1) x=\"'>x</a>",
    "<a href=https://e.example/&quot;onclick=alert(1)>x</a>",
    "<a href='https://e.example/&#34;><script>alert(1)</script>'>x</a>",
    "<a href='https://e.example/`onclick=alert(1)'>x</a>",
    "<a href=https://e.example onclick=alert(1)>x</a>",
    "<a href=https://e.example/onclick=alert(1)>x</a>",
    "<a onclick=alert(1) href=https://e.example>x</a>",
    "<a href=https://e.example href=javascript:alert(1)>x</a>",
    "<a href=javascript:alert(1) href=https://e.example>x</a>",
    "<a HREF=javascript:alert(1)//https://>x</a>",
    "<a href=https://e.example target=_blank rel=opener ping=//evil.example download>x</a>",
    '<a href="https://e.example"href="javascript:alert(1)">x</a>',
    "<a/href=javascript:alert(1)>x</a>",
    "<a\x0chref=javascript:alert(1)>x</a>",
    "<a href\n=\njavascript:alert(1)>x</a>",
    "<a href=>javascript:alert(1)</a>",
    "<a href==javascript:alert(1)>x</a>",
    "<a =href=javascript:alert(1)>x</a>",
    "<a name=x id=y href='#' onclick=alert(1)>x</a>",
    # cut off
    "<a href='https://e.example/",
    '<a href="javascript:alert(1)',
    '<p title="<script>alert(1)</script>',
    "text<img src=x onerror=alert(1) ",
    "&#60",
    "<!-- <script>",
    "<scrip",
]

HOSTS = {"e.example"}


class Audit(HTMLParser):
    """Fails on any element, attribute, declaration or address that could do something."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED["tags"]
        given = dict(attrs)
        assert set(given) == ({"href", "rel"} if tag == "a" else set())
        if tag == "a":
            address = urlsplit(given["href"] or "")
            assert given["rel"] == ALLOWED["link_rel"]
            assert address.scheme == "https"
            assert address.hostname in HOSTS

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(tag)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)


def assert_harmless(html: str) -> None:
    assert nh3.clean(html, **ALLOWED) == html
    audit = Audit()
    audit.feed(html)
    audit.close()


def test_the_corpus_is_large_enough() -> None:
    """At least 120 different vectors are tried."""
    assert len(set(VECTORS)) == len(VECTORS) >= 120


@pytest.mark.parametrize("vector", VECTORS)
def test_nothing_executable_survives(vector: str) -> None:
    """Whatever surrounds a vector and wherever it is split, every prefix shown holds only the allow-list."""
    for around in (
        "{}",
        "<p>before {} after</p>",
        "<ul><li><b>{}</b></li></ul>",
        "<pre><code>{}",
        '<a href="https://e.example">{}</a>',
    ):
        document = around.format(vector)
        for seed in range(3):
            source, stream, shown, at = random.Random(seed), HtmlStream(links=any_link), "", 0
            while at < len(document):
                end = at + source.choice((1, 2, 5, 40))
                shown += stream.feed(document[at:end])
                assert_harmless(shown + stream.closers())
                at = end
            shown += stream.finish()
            assert_harmless(shown)


@pytest.mark.parametrize("first", range(0, len(VECTORS), 20))
def test_vectors_do_not_help_each_other(first: int) -> None:
    """Vectors one after another, which open and close each other's elements, are as harmless."""
    for seed in range(8):
        source = random.Random(seed)
        stream = HtmlStream(links=any_link)
        shown = stream.feed("".join(source.sample(VECTORS, 6)) + VECTORS[first])
        assert_harmless(shown + stream.closers())
        assert_harmless(shown + stream.finish())


@pytest.mark.parametrize("vector", VECTORS)
def test_text_of_a_vector_is_never_markup_again(vector: str) -> None:
    """Plain text taken from a vector, escaped and shown, comes back as the same text."""
    text = to_text(vector)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert to_text(escaped) == text
