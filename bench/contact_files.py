"""Contact files to measure with: like people's exports, always the same, with known faults.

Of a hundred rows two are bad and five repeat the e-mail address of an earlier one, some of them in
capitals. Seven of ten have a phone, nearly all in the ways Brazilians write theirs. Names have
accents, some companies a comma, and addresses come in no order. What becomes of the rows is counted
while they are written, so that an import can be held to it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

SEED = 20_240_229
BAD, REPEATED, WITH_PHONE, FOREIGN = 0.02, 0.05, 0.70, 0.02
BUFFER_ROWS = 20_000
SCATTER = 2_654_435_761  # Knuth's multiplier: neighbours get names that are far apart

GIVEN = (
    *("Ana", "João", "Maria", "José", "Antônia", "Francisco", "Adriana", "Carlos", "Juliana"),
    *("Luís", "Márcia", "Paulo", "Fernanda", "Pedro", "Patrícia", "Lucas", "Aline", "Marcelo"),
    *("Sandra", "Rafael", "Camila", "Daniel", "Amanda", "Bruno", "Bruna", "Rodrigo", "Jéssica"),
)
FAMILY = (
    *("Silva", "Santos", "Oliveira", "Souza", "Rodrigues", "Ferreira", "Alves", "Pereira", "Lima"),
    *("Gomes", "Costa", "Ribeiro", "Martins", "Carvalho", "Almeida", "Lopes", "Soares", "Araújo"),
    *("Fernandes", "Vieira", "Barbosa", "Rocha", "Dias", "Nascimento", "Andrade", "Moreira"),
)
COMPANIES = (
    *("Padaria Estrela do Mar", "Jangada Transportes Ltda", "Mercado Bom Preço", "Oficina Dois"),
    *("Construções São Jorge", '"Lima, Costa & Filhos"', "Farmácia Popular", "Studio 54", ""),
)
DOMAINS = (
    *("gmail.com", "hotmail.com", "yahoo.com.br", "outlook.com", "uol.com.br", "terra.com.br"),
    *("empresa.com.br", "acme.com", "universidade.edu.br"),
)
AREAS = ("11", "21", "31", "41", "51", "61", "71", "81", "85", "92")
STYLES = ("({}) {}-{}", "+55 {} {}-{}", "{}{}{}", "{} {} {}", "+55{}{}{}")
PLAIN = str.maketrans("áãâçéêíóôõú", "aaaceeiooou")


@dataclass(slots=True)
class ContactFile:
    """A file, and what an import into an empty tenant has to make of it."""

    path: Path
    has_phones: bool
    inserted: int = 0
    duplicates: int = 0
    rejected: int = 0

    @property
    def rows(self) -> int:
        return self.inserted + self.duplicates + self.rejected

    @property
    def counts(self) -> dict[str, int]:
        none = dict.fromkeys(("updated", "unchanged", "skipped"), 0)
        return none | {
            "rows": self.rows,
            "inserted": self.inserted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
        }


def write_contacts(
    path: Path, *, rows: int | None = None, mebibytes: int | None = None, has_phones: bool = True
) -> ContactFile:
    """A file of so many rows, or of as many as make so many MiB."""
    made = ContactFile(path, has_phones)
    lines = islice(_lines(made), rows)
    with path.open("wb") as file:
        file.write(b"Name,E-mail,Phone,Company\n" if has_phones else b"Name,E-mail,Company\n")
        while block := "".join(islice(lines, BUFFER_ROWS)):
            file.write(block.encode())
            if mebibytes is not None and file.tell() >= mebibytes << 20:
                break
    return made


def _lines(made: ContactFile) -> Iterator[str]:
    has_phones = made.has_phones
    chance = random.Random(SEED)
    for number in count():
        drawn = chance.random()
        phone = _phone(chance) if has_phones else ""
        if drawn < BAD:
            made.rejected += 1
            name, email, company = _person(number)
            email, phone = _spoilt(email, phone, number, has_phones=has_phones)
        elif drawn < BAD + REPEATED and made.inserted:
            made.duplicates += 1
            name, email, company = _person(chance.randrange(made.inserted))
            email = email.upper() if number % 2 else email
        else:
            name, email, company = _person(made.inserted)
            made.inserted += 1
        yield f"{name},{email},{phone},{company}\n" if has_phones else f"{name},{email},{company}\n"


def _person(number: int) -> tuple[str, str, str]:
    scattered = number * SCATTER & 0xFFFF_FFFF
    given, family = GIVEN[scattered % len(GIVEN)], FAMILY[scattered // 31 % len(FAMILY)]
    domain = DOMAINS[scattered // 997 % len(DOMAINS)]
    email = f"{given}.{family}{number}@{domain}".lower().translate(PLAIN)
    return f"{given} {family}", email, COMPANIES[scattered // 7 % len(COMPANIES)]


def _phone(chance: random.Random) -> str:
    drawn = chance.random()
    digits = f"{int(chance.random() * 1e8):08}"
    if drawn > WITH_PHONE:
        return ""
    if drawn < FOREIGN:
        return f"+351 912 {digits[:3]} {digits[3:6]}"
    area = AREAS[int(drawn * 1e6) % len(AREAS)]
    return STYLES[int(drawn * 1e7) % len(STYLES)].format(area, f"9{digits[:4]}", digits[4:])


def _spoilt(email: str, phone: str, number: int, *, has_phones: bool) -> tuple[str, str]:
    """Half of them addresses without an @ or a domain, the rest wrong phones or no key at all."""
    match number % 4:
        case 0:
            return email.replace("@", " "), phone
        case 1:
            return email.partition("@")[0] + "@", phone
        case 2 if has_phones:
            return email, "(00) 1234"
        case _:
            return "", ""
