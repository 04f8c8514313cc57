"""Money: prices per token, and a cap that holds however many requests are under way."""

import asyncio
from dataclasses import dataclass

from exgra_med.llm.request import BudgetError


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


KNOWN_PRICES = {
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gemini-2.5-flash": Price(0.30, 2.50),
}
"""List prices of 2025; a service's own figure, where it sends one, goes before them."""


def known_price(model: str) -> Price | None:
    """The list price of a model, by the last part of its name; None where we know none."""
    return KNOWN_PRICES.get(model.rpartition("/")[2])


class Budget:
    """Spending that cannot pass a limit: each request first reserves the most it can cost.

    Args:
        limit: US dollars.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        self._reserved: list[float] = []
        self._changed = asyncio.Condition()

    async def reserve(self, amount: float) -> None:
        """Wait until `amount` fits beside what is spent and reserved.

        Raises:
            BudgetError: it will never fit.
        """
        async with self._changed:
            while self.spent + sum(self._reserved) + amount > self.limit:
                if not self._reserved:
                    raise BudgetError(
                        f"The budget of {self.limit:g} US dollars is used up "
                        f"({self.spent:.4f} spent, the next request may cost {amount:.4f}).",
                        "What was paid is kept; go on with a higher --max-cost.",
                    )
                await self._changed.wait()
            self._reserved.append(amount)

    async def settle(self, reserved: float, cost: float) -> None:
        """Give a reservation back and book what the request did cost."""
        async with self._changed:
            self._reserved.remove(reserved)
            self.spent += cost
            self._changed.notify_all()
