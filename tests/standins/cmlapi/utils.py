"""Walks through the pages of a list call."""


class Cursor:
    def __init__(self, method, *args, **kwargs):
        self.method, self.args, self.kwargs = method, args, dict(kwargs)
        self.kwargs.setdefault("page_size", 100)

    def items(self):
        while True:
            answer = self.method(*self.args, **self.kwargs)
            (name, *_) = (one for one in answer.swagger_types if one != "next_page_token")
            yield from getattr(answer, name)
            if not answer.next_page_token:
                return
            self.kwargs["page_token"] = answer.next_page_token
