"""From a model's streamed reply to what a visitor may see. Pure: text in, text out, no I/O.

extract    FieldScanner: the text of one field of a JSON reply, as it arrives; MalformedAnswer
sanitise   HtmlStream: that text as safe HTML, of which every prefix is whole; to_text for prompts and text
           channels
"""
